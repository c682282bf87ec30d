// Chromium for the tests: every refusal by the policy and every error on the console is kept and fails the test.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
];

/** Opens a browser with a profile of its own. `close` ends it and removes the profile. */
export async function openBrowser({ executablePath = '/usr/bin/chromium', ...options } = {}) {
  const profile = mkdtempSync(join(tmpdir(), 'backstay-ui-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath, args: FLAGS, headless: true, ignoreHTTPSErrors: true, viewport: { width: 1280, height: 860 }, locale: 'en-GB', ...options,
  });
  const page = context.pages()[0] ?? (await context.newPage());
  const faults = watch(page);
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => {
      console.error(`POLICY ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`);
    });
  });
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { context, page, faults, close };
}

// Asking who is signed in is answered 401 before anybody is; Chromium notes that on its console. `allow` holds what
// else a test provokes on purpose.
function watch(page) {
  const list = [];
  const allow = [/status of 401 .*\/api\/v1\/session$/];
  page.on('console', (message) => {
    if (message.type() !== 'error' && message.type() !== 'warning') return;
    const text = `${message.text()} ${message.location().url ?? ''}`;
    if (!allow.some((pattern) => pattern.test(text))) list.push(text);
  });
  page.on('pageerror', (error) => list.push(`uncaught ${error.stack ?? error}`));
  return { list, allow };
}

/** Takes numbered screenshots into a folder; does nothing without one. */
export function camera(page, folder) {
  let count = 0;
  if (folder) mkdirSync(folder, { recursive: true });
  return async (name, options = {}) => {
    if (!folder) return;
    count += 1;
    await page.screenshot({ path: join(folder, `${String(count).padStart(2, '0')}-${name}.png`), ...options });
  };
}

/** Waits until `probe` gives something; polls, with a deadline and a sentence for the failure. */
export async function until(what, seconds, probe, every = 200) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited ${seconds} s in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}
