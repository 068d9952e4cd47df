// Drives Chromium for the tests, the benchmark and the screenshots: one JSON object a line in, one a line out.
//
//     node driver.mjs FOLDER CHROMIUM [FLAG...]     FOLDER: where node_modules with playwright-core is
//
// Every page records what must not happen: console errors and warnings, uncaught errors, breaches of its content
// security policy, and requests that would leave the machine (they are stopped).

import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, executablePath, ...flags] = process.argv.slice(2);
const { chromium } = createRequire(path.join(path.resolve(folder), "package.json"))("playwright-core");

const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
quiet.push("--disable-component-update", "--disable-sync", "--force-color-profile=srgb", "--hide-scrollbars");
quiet.push("--disable-dev-shm-usage"); // containers give it little
const browser = await chromium.launch({ executablePath, args: [...quiet, ...flags] });
const pages = new Map();
let last = 0;

/** Whether an address stays on this machine: loopback, data in the page itself, or the one file that was asked for. */
function stays(address, files) {
  const url = new URL(address);
  if (["data:", "blob:", "about:"].includes(url.protocol)) return true;
  if (url.protocol === "file:") return files.includes(address.split("#")[0]);
  return ["http:", "ws:"].includes(url.protocol) && ["127.0.0.1", "localhost", "[::1]"].includes(url.hostname);
}

async function listen(page, problems, files, watch) {
  page.on("console", (message) => {
    if (!["error", "warning"].includes(message.type())) return;
    problems.push({ kind: `console ${message.type()}`, text: message.text(), where: message.location().url });
  });
  page.on("pageerror", (error) => problems.push({ kind: "page error", text: String(error?.stack ?? error), where: "" }));
  page.on("crash", () => problems.push({ kind: "crash", text: "the page crashed", where: "" }));
  page.on("request", (request) => {
    if (!stays(request.url(), files)) problems.push({ kind: "request outside", text: request.url(), where: "" });
  });
  if (!watch) return;
  await page.exposeBinding("__breach", (_, text) => problems.push({ kind: "policy", text, where: "" }));
  await page.addInitScript(() => {
    const say = (event) => window.__breach(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`);
    document.addEventListener("securitypolicyviolation", say);
  });
  await page.route("**/*", (route) => (stays(route.request().url(), files) ? route.fallback() : route.abort()));
}

const element = (page, selector) => page.locator(selector).first();

/** What each order does. Page orders get the record of their page. */
const orders = {
  version: () => browser.version(),

  // A window. shares: the number of a window whose storage it has. watch: stop requests, look for breaches; a
  // benchmark leaves it off, since each request then takes a detour.
  async open({ width = 1440, height = 900, scheme = "light", shares = null, offline = false, watch = true, scripts = true }) {
    const context =
      shares === null
        ? await browser.newContext({
            viewport: { width, height }, colorScheme: scheme, offline, acceptDownloads: true, javaScriptEnabled: scripts,
            reducedMotion: "reduce", timezoneId: "UTC", locale: "en-GB",
          })
        : pages.get(shares).context;
    const page = await context.newPage();
    page.setDefaultTimeout(15000);
    const problems = [];
    const files = [];
    await listen(page, problems, files, watch);
    pages.set(++last, { context, page, problems, files });
    return last;
  },

  async close({ at }) {
    await at.page.close({ runBeforeUnload: false });
    if (!at.context.pages().length) await at.context.close();
    pages.delete(at.number);
    return null;
  },

  async goto({ at, url, file = null, until = "load" }) {
    const address = file === null ? url : pathToFileURL(file).href;
    if (file !== null) at.files.push(address);
    const answer = await at.page.goto(address, { waitUntil: until });
    return { status: answer?.status() ?? null, headers: answer?.headers() ?? {} };
  },

  reload: async ({ at }) => void (await at.page.reload()),

  // The value of an expression, in the page or in its frame number `frame`.
  js: ({ at, code, frame = 0 }) => at.page.frames()[frame].evaluate(code),

  // Until an expression is true; the page's own policy forbids what playwright's waitForFunction does.
  async wait({ at, code, frame = 0, seconds = 15 }) {
    const end = Date.now() + 1000 * seconds;
    for (;;) {
      const found = await at.page.frames()[frame]?.evaluate(code).catch((error) => {
        if (/closed|navigat|destroyed|detached/i.test(String(error))) return null;
        throw error;
      });
      if (found) return found;
      if (Date.now() > end) throw new Error(`not true after ${seconds} s: ${code}`);
      await new Promise((done) => setTimeout(done, 25));
    }
  },

  click: async ({ at, selector, modifiers = [], button = "left", count = 1 }) =>
    void (await element(at.page, selector).click({ modifiers, button, clickCount: count })),
  hover: async ({ at, selector }) => void (await element(at.page, selector).hover()),
  fill: async ({ at, selector, text }) => void (await element(at.page, selector).fill(text)),
  select: async ({ at, selector, value }) => void (await element(at.page, selector).selectOption(value)),
  focus: async ({ at, selector }) => void (await element(at.page, selector).focus()),
  press: async ({ at, key, times = 1 }) => {
    for (let i = 0; i < times; i++) await at.page.keyboard.press(key);
  },
  type: async ({ at, text }) => void (await at.page.keyboard.type(text)),
  count: ({ at, selector }) => at.page.locator(selector).count(),
  text: ({ at, selector }) => element(at.page, selector).innerText(),

  async mouse({ at, x, y, modifiers = [], button = "left", click = true, count = 1 }) {
    for (const key of modifiers) await at.page.keyboard.down(key);
    if (click) await at.page.mouse.click(x, y, { button, clickCount: count });
    else await at.page.mouse.move(x, y);
    for (const key of modifiers) await at.page.keyboard.up(key);
    return null;
  },

  wheel: async ({ at, dx = 0, dy = 0 }) => void (await at.page.mouse.wheel(dx, dy)),

  async drag({ at, from, to, steps = 8 }) {
    await at.page.mouse.move(...from);
    await at.page.mouse.down();
    await at.page.mouse.move(...to, { steps });
    await at.page.mouse.up();
    return null;
  },

  // Click and keep what is downloaded.
  async download({ at, selector, path: to }) {
    const waiting = at.page.waitForEvent("download", { timeout: 20000 });
    await element(at.page, selector).click();
    const download = await waiting;
    await download.saveAs(to);
    return { name: download.suggestedFilename(), url: download.url() };
  },

  // Click and give a file to the file chooser that opens.
  async upload({ at, selector, path: from }) {
    const waiting = at.page.waitForEvent("filechooser", { timeout: 20000 });
    await element(at.page, selector).click();
    await (await waiting).setFiles(from);
    return null;
  },

  // Answer the next native dialogs (alert, confirm, prompt).
  async answer({ at, text = null }) {
    at.page.on("dialog", (dialog) => (text === null ? dialog.dismiss() : dialog.accept(text)));
    return null;
  },

  emulate: async ({ at, scheme = null, media = null }) => void (await at.page.emulateMedia({ colorScheme: scheme, media })),
  resize: async ({ at, width, height }) => void (await at.page.setViewportSize({ width, height })),
  offline: async ({ at, on }) => void (await at.context.setOffline(on)),
  screenshot: async ({ at, path: to, selector = null }) =>
    void (await (selector === null ? at.page : element(at.page, selector)).screenshot({ path: to, animations: "disabled" })),
  pdf: async ({ at, path: to }) => void (await at.page.pdf({ path: to, format: "A4", landscape: true })),
  frames: ({ at }) => at.page.frames().map((frame) => frame.url()),

  // Bytes that the page's scripts hold after collecting garbage: objects, and the buffers behind typed arrays.
  async heap({ at }) {
    const client = await at.context.newCDPSession(at.page);
    await client.send("HeapProfiler.enable");
    for (let i = 0; i < 3; i++) await client.send("HeapProfiler.collectGarbage");
    const found = await client.send("Runtime.getHeapUsage");
    await client.detach();
    return found;
  },

  problems: ({ at }) => at.problems.splice(0),

  async quit() {
    await browser.close();
    return null;
  },
};

async function obey(order) {
  const { number, op, page = null, ...rest } = order;
  try {
    const at = page === null ? null : pages.get(page);
    if (page !== null && !at) throw new Error(`there is no window ${page}`);
    if (at) at.number = page;
    const value = await orders[op]({ at, ...rest });
    return { number, value: value ?? null };
  } catch (error) {
    return { number, error: String(error?.message ?? error) };
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await obey(order))}\n`);
  if (order.op === "quit") process.exit(0);
}
await browser.close();
process.exit(0);
