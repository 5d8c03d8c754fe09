"""The HTTP port of the aggregator: routes, middleware, OpenAPI, pages."""
