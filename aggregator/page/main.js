// The page: the token prompt, the live part, then the banners.

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
