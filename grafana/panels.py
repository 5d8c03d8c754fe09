"""The few kinds of panel that the dashboards use, each with the same look.

Why on top of Grafana's own builders: a panel here can't be made without a unit and a description,
and places itself; everything else is left to the builders, which know Grafana's schema.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS: Final = c.DataSourceRef(type_val="prometheus", uid="${prometheus}")
POSTGRES_TYPE: Final = "grafana-postgresql-datasource"
POSTGRES: Final = c.DataSourceRef(type_val=POSTGRES_TYPE, uid="${postgres}")
WIDTH: Final = 24
STAT_HEIGHT: Final = 4
HEIGHT: Final = 8

AnyPanel = stat.Panel | timeseries.Panel | table.Panel | bargauge.Panel
PanelT = TypeVar("PanelT", stat.Panel, timeseries.Panel, table.Panel, bargauge.Panel)


class SqlQuery(variants.Dataquery):
    """A query of Grafana's Postgres datasource, of which the builders have no model."""

    def __init__(self, sql: str, ref_id: str, shape: str) -> None:
        self.sql, self.ref_id, self.shape = sql, ref_id, shape

    def to_json(self) -> dict[str, object]:
        """As Grafana's own editor stores it in its code mode."""
        return {
            "datasource": POSTGRES,
            "editorMode": "code",
            "format": self.shape,
            "rawQuery": True,
            "rawSql": self.sql,
            "refId": self.ref_id,
        }


class _Sql(cog.Builder[variants.Dataquery]):
    def __init__(self, sql: str, ref_id: str, shape: str) -> None:
        self._query = SqlQuery(" ".join(sql.split()), ref_id, shape)

    def build(self) -> variants.Dataquery:
        return self._query


class Line(NamedTuple):
    """One expression of a panel, and the names of its series."""

    expr: str
    legend: str


class Row(NamedTuple):
    """A heading with the panels under it."""

    title: str
    panels: tuple[AnyPanel, ...]


def steps(*bounds: tuple[float, str], base: str = "green") -> dashboard.ThresholdsConfig:
    """Colours from each bound on; below the first it is `base`."""
    colours = [d.Threshold(value=None, color=base)]
    colours += [d.Threshold(value=bound, color=colour) for bound, colour in bounds]
    return dashboard.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(colours)


def _prom(line: Line, ref_id: str, instant: bool) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(line.expr).legend_format(line.legend).ref_id(ref_id)
    query = query.datasource(PROMETHEUS).format(PromQueryFormat.TIME_SERIES)
    return query.instant() if instant else query.range()


def _with_lines(panel: PanelT, lines: tuple[Line, ...], instant: bool = False) -> PanelT:
    panel.datasource(PROMETHEUS)
    for ref_id, line in zip("ABCDEFGH", lines, strict=False):
        panel.with_target(_prom(line, ref_id, instant))
    return panel


def _with_sql(panel: PanelT, sql: str, shape: str) -> PanelT:
    return panel.datasource(POSTGRES).with_target(_Sql(sql, "A", shape))


def _titled(panel: PanelT, title: str, unit: str, what: str, span: int, height: int) -> PanelT:
    return panel.title(title).unit(unit).description(what).span(span).height(height)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def _number(
    title: str, unit: str, what: str, span: int, thresholds: dashboard.ThresholdsConfig
) -> stat.Panel:
    panel = _titled(stat.Panel(), title, unit, what, span, STAT_HEIGHT)
    panel.thresholds(thresholds).reduce_options(_last()).color_mode(c.BigValueColorMode.VALUE)
    panel.color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.THRESHOLDS))
    return panel.graph_mode(c.BigValueGraphMode.AREA).text_mode(c.BigValueTextMode.VALUE)


def number(
    title: str, unit: str, what: str, expr: str, thresholds: dashboard.ThresholdsConfig,
    span: int = 4,
) -> stat.Panel:  # fmt: skip
    """One value with its history behind it, coloured by its thresholds."""
    return _with_lines(_number(title, unit, what, span, thresholds), (Line(expr, title),))


def sql_number(
    title: str, unit: str, what: str, sql: str, thresholds: dashboard.ThresholdsConfig,
    span: int = 4,
) -> stat.Panel:  # fmt: skip
    """One value out of Postgres."""
    panel = _number(title, unit, what, span, thresholds).graph_mode(c.BigValueGraphMode.NONE)
    return _with_sql(panel, sql, "table")


def _curves(title: str, unit: str, what: str, span: int, stacked: bool) -> timeseries.Panel:
    panel = _titled(timeseries.Panel(), title, unit, what, span, HEIGHT)
    legend = common.VizLegendOptions().show_legend(True).placement(c.LegendPlacement.BOTTOM)
    legend.display_mode(c.LegendDisplayMode.TABLE).calcs(["lastNotNull", "max"])
    tooltip = common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI)
    panel.legend(legend).tooltip(tooltip.sort(c.SortOrder.DESCENDING))
    panel.line_width(2 if not stacked else 1).fill_opacity(30 if stacked else 8).min(0)
    panel.show_points(c.VisibilityMode.NEVER).line_interpolation(c.LineInterpolation.LINEAR)
    if stacked:
        panel.stacking(common.StackingConfig().mode(c.StackingMode.NORMAL).group("A"))
    return panel


def curves(
    title: str, unit: str, what: str, *lines: Line, span: int = 12, stacked: bool = False,
    thresholds: dashboard.ThresholdsConfig | None = None,
) -> timeseries.Panel:  # fmt: skip
    """Lines over time; thresholds, where given, are drawn as lines too."""
    panel = _with_lines(_curves(title, unit, what, span, stacked), lines)
    if thresholds is not None:
        style = common.GraphThresholdsStyleConfig().mode(c.GraphThresholdsStyleMode.LINE)
        panel.thresholds(thresholds).thresholds_style(style)
    return panel


def sql_curves(
    title: str, unit: str, what: str, sql: str, span: int = 12, stacked: bool = False
) -> timeseries.Panel:
    """Lines over time out of Postgres: columns time, metric (text), value."""
    panel = _with_sql(_curves(title, unit, what, span, stacked), sql, "time_series")
    return panel.draw_style(c.GraphDrawStyle.BARS if stacked else c.GraphDrawStyle.LINE)


def sql_table(
    title: str, what: str, sql: str, span: int = 12, units: dict[str, str] | None = None
) -> table.Panel:
    """A table out of Postgres; `units` are the units of single columns."""
    panel = _with_sql(_titled(table.Panel(), title, "short", what, span, HEIGHT), sql, "table")
    for column, unit in (units or {}).items():
        panel.override_by_name(column, [d.DynamicConfigValue(id_val="unit", value=unit)])
    return panel.show_header(True)


def sql_bars(title: str, unit: str, what: str, sql: str, span: int = 12) -> bargauge.Panel:
    """A bar for each row of a result with the columns of a name and a number."""
    panel = _with_sql(_titled(bargauge.Panel(), title, unit, what, span, HEIGHT), sql, "table")
    panel.reduce_options(common.ReduceDataOptions().values(True).calcs([]).fields("/clicks/"))
    panel.orientation(c.VizOrientation.HORIZONTAL).display_mode(c.BarGaugeDisplayMode.GRADIENT)
    panel.color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.CONTINUOUS_BL_PU))
    return panel.value_mode(c.BarGaugeValueMode.TEXT).min(0)


def board(
    uid: str, title: str, what: str, rows: tuple[Row, ...], *variables: dashboard.QueryVariable
) -> dashboard.Dashboard:
    """A dashboard of these rows, with the variables that all have, and alerts as annotations."""
    made = dashboard.Dashboard(title).uid(uid).description(what).tags(["clickmill"])
    made.time("now-1h", "now").refresh("10s").timezone("browser").editable()
    made.tooltip(d.DashboardCursorSync.CROSSHAIR)
    made.link(
        dashboard.DashboardLink("Clickmill")
        .type(d.DashboardLinkType.DASHBOARDS)
        .tags(["clickmill"])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
    )
    made.with_variable(_datasource("prometheus", "Prometheus", "prometheus"))
    made.with_variable(_datasource("postgres", "Postgres", POSTGRES_TYPE))
    for variable in (_instances(), *variables):
        made.with_variable(variable)
    for row in rows:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made.with_panel(panel)
    return made.annotation(_alerts())


def _datasource(name: str, label: str, kind: str) -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable(name).label(label).type(kind).multi(False)


def _instances() -> dashboard.QueryVariable:
    query: dict[str, object] = {
        "qryType": 1,
        "query": "label_values(clickmill_build_info, instance)",
        "refId": "instances",
    }
    made = dashboard.QueryVariable("instance").label("Instance").datasource(PROMETHEUS)
    made.description("Machines, by the address that Prometheus scrapes")
    made.query(query).refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
    made.sort(d.VariableSort.ALPHABETICAL_ASC)
    return made.multi(True).include_all(True).all_value(".*").current(_all())


def _all() -> d.VariableOption:
    return d.VariableOption(text="All", value="$__all", selected=True)


def banners() -> dashboard.QueryVariable:
    """The most clicked banners of the last days, by name where they have one."""
    sql = """
        SELECT banner_id AS __value, coalesce(max(b.name), 'banner ' || banner_id) AS __text
        FROM (
            SELECT banner_id, clicks FROM rollup_hour WHERE hour >= now() - interval '8 days'
            UNION ALL
            SELECT banner_id, clicks FROM banner_minute WHERE minute >= now() - interval '2 hours'
        ) t LEFT JOIN banner b ON b.id = banner_id
        GROUP BY banner_id ORDER BY sum(clicks) DESC LIMIT 500
    """
    made = dashboard.QueryVariable("banner").label("Banner").datasource(POSTGRES)
    made.description("One banner, or several; the most clicked ones of the last days are offered")
    made.query(" ".join(sql.split())).refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
    return made.multi(True).include_all(True).all_value("-1").current(_all())


def _alerts() -> dashboard.AnnotationQuery:
    expr = 'ALERTS{alertname=~"Clickmill.*",alertstate="firing"}'
    target = _prom(Line(expr, ""), "alerts", instant=False)
    made = dashboard.AnnotationQuery().name("Alerts").datasource(PROMETHEUS).enable(True)
    made.icon_color("red").expr(expr).target(target)
    return made.title_format("{{alertname}}").text_format("{{instance}}").step("30s")
