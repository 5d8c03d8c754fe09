// The API documentation, drawn from /openapi.json of this host.

import { askJson } from "/page/api.js";
import { startAsking } from "/page/ask.js";

startAsking();
const spec = await askJson("/openapi.json");
const token = sessionStorage.getItem("clickmill-token");
// The library is a plain script, which leaves this behind.
/** @type {any} */ (window).SwaggerUIBundle({
  spec,
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: (/** @type {{ headers: Record<string, string> }} */ request) => {
    if (token) request.headers.Authorization = `Bearer ${token}`;
    return request;
  },
});
