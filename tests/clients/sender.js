// Clicks through Node's http, and says what came of it.
//
//   node sender.js URL SHAPE CLICKS
//
// SHAPE write: `write`, then `end`, which sends the end of the body by itself; small: `end` with
// two bytes and their length; large: of 200 KB.
"use strict";

const http = require("node:http");

const IN_FLIGHT = 8;
const [url, shape, clicks] = process.argv.slice(2);
const sent = Number(clicks);
const agent = new http.Agent({ keepAlive: true, maxSockets: IN_FLIGHT });
const sockets = new Set();
const large = Buffer.alloc(200 << 10, " ");
let begun = 0;
let answered = 0;

function send(request) {
  if (shape === "write") {
    request.write("{}");
    request.end();
  } else {
    const body = shape === "large" ? large : "{}";
    request.setHeader("Content-Length", body.length);
    request.end(body);
  }
}

function click() {
  return new Promise((resolve) => {
    const failed = (error) => {
      console.error(String(error));
      resolve();
    };
    const request = http.request(url, { agent, method: "POST" }, (answer) => {
      answer.on("error", failed);
      answer.on("end", () => {
        if (answer.statusCode === 200) answered += 1;
        else console.error(`answered ${answer.statusCode}`);
        resolve();
      });
      answer.resume();
    });
    request.on("socket", (socket) => sockets.add(socket));
    request.on("error", failed);
    send(request);
  });
}

async function clickOn() {
  while (begun < sent) {
    begun += 1;
    await click();
  }
}

Promise.all(Array.from({ length: IN_FLIGHT }, clickOn)).then(() => {
  agent.destroy();
  console.log(JSON.stringify({ sent, answered, connections: sockets.size }));
});
