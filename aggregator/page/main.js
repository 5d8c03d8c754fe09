// The page: first the token, then the live half, then banners.

import { startAsking } from "/page/ask.js";
import { loadNames, startBanner } from "/page/banner.js";
import { startLive } from "/page/live.js";
import { startTheme } from "/page/theme.js";
import { startTop } from "/page/top.js";

startTheme();
startAsking();
startLive();
startBanner();
loadNames();
await startTop();
