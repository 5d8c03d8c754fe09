// The page: the token prompt, the live part, then the banners.

import { startAsking } from "./ask.js";
import { loadNames, startBanner } from "./banner.js";
import { startLive } from "./live.js";
import { startTheme } from "./theme.js";
import { startTop } from "./top.js";

startTheme();
startAsking();
startLive();
startBanner();
loadNames();
await startTop();
