// The API documentation, drawn from openapi.json of this server.

import { askJson } from "./api.js";
import { startAsking } from "./ask.js";

startAsking();
const spec = await askJson("openapi.json");
// Its servers are relative to the document itself, which the library does not know.
spec.servers = [{ url: new URL("..", import.meta.url).href }];
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
