// `npm run e2e`: the journey against the controller that the environment or a JSON file names. See README.md beside it.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { openBrowser } from './browser.mjs';
import { readConfig } from './config.mjs';
import { journey } from './steps.mjs';

const config = readConfig(process.env, (file) => readFileSync(file, 'utf8'));

/** Leaves the line where the harness looks for it; the harness runs it on the server. Complete or absent, never half. */
async function join(command) {
  writeFileSync(`${config.join_file}.new`, `${command}\n`, { mode: 0o600 });
  renameSync(`${config.join_file}.new`, config.join_file);
}

const browser = await openBrowser({ executablePath: config.chromium });
const result = { ok: false, facts: {}, faults: browser.faults.list, error: null };
try {
  result.facts = await journey(browser.page, config, { join, log: (text) => console.log(text) });
  if (result.faults.length > 0) throw new Error(`the console or the policy complained:\n${result.faults.join('\n')}`);
  result.ok = true;
} catch (error) {
  result.error = String(error?.stack ?? error);
  if (config.shots) await browser.page.screenshot({ path: `${config.shots}/failure.png`, fullPage: true }).catch(() => {});
} finally {
  await browser.close();
}
if (config.result_file) writeFileSync(config.result_file, `${JSON.stringify(result, null, 2)}\n`);
console.log(result.ok ? `journey: ok ${JSON.stringify(result.facts)}` : `journey: FAILED ${result.error}`);
process.exit(result.ok ? 0 : 1);
