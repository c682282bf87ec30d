// `npm run e2e:mock`: the journey and the odd cases against the double, with axe on every screen. Needs `npm run build`.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { startMock } from '../mock/server.mjs';
import { camera, openBrowser, until } from './browser.mjs';
import { journey } from './steps.mjs';

const run = promisify(execFile);
const dist = new URL('../../dist/', import.meta.url).pathname;
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const shots = process.env.BACKSTAY_E2E_SHOTS ?? '';
const only = process.argv[2] ?? '';
const failures = [];

/** Waits for what slides in; what turns for ever is not waited for. */
const still = (page) =>
  page.evaluate(() => Promise.all(document.getAnimations().map((a) => (a.effect?.getComputedTiming().endTime === Infinity ? undefined : a.finished.catch(() => {})))));

async function audit(page, name) {
  await still(page);
  const found = await page.evaluate(async () => {
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    const { violations } = await window.axe.run(document, { runOnly: { type: 'tag', values: tags } });
    return violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => n.target.join(' ')).join(' | ')}`);
  });
  for (const line of found) failures.push(`axe on ${name}: ${line}`);
}

/** One test: its own double, its own browser. */
async function test(name, { state = 'fleet', ...options }, body) {
  if (only && !name.includes(only)) return;
  const mock = await startMock({ dist, state });
  const browser = await openBrowser(options);
  await browser.page.addInitScript({ content: axe });
  browser.page.setDefaultTimeout(10_000);
  const before = failures.length;
  try {
    await body({ mock, ...browser, shot: camera(browser.page, shots && `${shots}/${name}`) });
  } catch (error) {
    failures.push(`${name}: ${error.stack ?? error}`);
    if (shots) await browser.page.screenshot({ path: `${shots}/${name}/failure.png` }).catch(() => {});
  }
  for (const fault of browser.faults.list) failures.push(`${name}: console: ${fault}`);
  await browser.close();
  await mock.close();
  console.log(`${failures.length === before ? 'ok  ' : 'FAIL'} ${name}`);
}

async function signIn(page, mock, to = '/') {
  await page.goto(`${mock.url}${to}`);
  await page.getByLabel('Name', { exact: true }).fill('anna');
  await page.getByLabel('Account password').fill('correct horse battery');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.locator('#main').waitFor();
}

const settled = (page) => until('the page to be loaded', 10, async () => (await page.locator('.skeleton').count()) === 0 && (await page.locator('h1').count()) > 0);

/** No page scrolls sideways at the width of a phone. */
async function fits(page, name) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) failures.push(`${name}: the page is ${wide} px wider than the window`);
}

await test('journey', { state: 'fresh' }, async ({ mock, page }) => {
  const config = {
    url: mock.url, setup_token: mock.token, user: 'anna', password: 'correct horse battery', server: 'web1', schedule: 'nightly', scope: 'Full', when: '',
    destinations: ['local', 'offsite'], result: 'OK', restore: '/var/tmp/restored', progress_steps: 3, timeout_secs: 30, shots: shots && `${shots}/journey`,
  };
  const join = async (command) => run('sh', ['-c', command]);
  const facts = await journey(page, config, { join, log: () => {}, check: (name) => audit(page, name) });
  if (facts.restore !== 'done' || facts.log_lines < 3) throw new Error(JSON.stringify(facts));
});

async function tour({ mock, page, shot }) {
  await signIn(page, mock);
  const web1 = mock.world.servers.find((s) => s.name === 'web1');
  const failed = mock.world.runs.find((r) => r.state === 'failed');
  const snapshot = mock.world.snapshots.get(`${web1.id}/nightly`)[1].id;
  const pages = [
    ['servers', '/servers'],
    ['server', `/servers/${mock.world.servers.find((s) => s.name === 'web2').id}`],
    ['server-offline', `/servers/${mock.world.servers.find((s) => s.name === 'web3').id}`],
    ['schedules', '/backups/schedules'],
    ['schedule-new', `/backups/schedules/new?server=${web1.id}`],
    ['schedule', `/backups/schedules/${web1.id}/nightly`],
    ['history', '/backups/history'],
    ['run-failed', `/backups/history/${failed.id}?state=failed`],
    ['restore', `/backups/restore?server=${web1.id}&schedule=nightly&snapshot=${snapshot}`],
    ['unknown', '/nowhere'],
  ];
  for (const [name, address] of pages) {
    await page.goto(mock.url + address);
    await settled(page);
    await still(page);
    await shot(name);
    if (['schedule-new', 'restore', 'server'].includes(name)) await shot(`${name}-full`, { fullPage: true });
    await fits(page, name);
    await audit(page, name);
  }
  await page.goto(`${mock.url}/backups/schedules`);
  await settled(page);
  mock.startRun('web1', 'nightly');
  mock.startRun('web2', 'nightly');
  await page.getByTestId('active-tasks').getByRole('button', { name: 'Details' }).click();
  await until('two running rows', 10, async () => (await page.getByTestId('active-tasks').locator('progress').count()) === 2 && (await page.getByText('left').count()) > 1);
  await shot('running');
  await fits(page, 'running');
  await audit(page, 'running');
}

await test('light', { colorScheme: 'light' }, tour);
await test('dark', { colorScheme: 'dark' }, tour);
await test('phone', { colorScheme: 'light', viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true }, tour);
await test('phone-dark', { colorScheme: 'dark', viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true }, tour);

await test('empty', { state: 'fresh' }, async ({ mock, page, shot }) => {
  await page.goto(`${mock.url}/`);
  await page.getByLabel('Set-up token').fill('wrong');
  await page.getByRole('button', { name: 'Make the account' }).click();
  await page.getByText('Enter a name.').waitFor();
  await page.getByLabel('Name', { exact: true }).fill('anna');
  await page.getByLabel('Account password').fill('correct horse battery');
  await page.getByLabel('The same password again').fill('correct horse battery');
  await shot('setup');
  await page.getByLabel('Set-up token').fill(mock.token);
  await page.getByRole('button', { name: 'Make the account' }).click();
  for (const [name, address, words] of [['servers', '/servers', 'No server yet'], ['schedules', '/backups/schedules', 'No server yet'], ['history', '/backups/history', 'No run was reported yet'], ['restore', '/backups/restore', 'Nothing to restore yet']]) {
    await page.locator('#main').waitFor();
    await page.goto(mock.url + address);
    await page.getByRole('heading', { name: words }).waitFor();
    await shot(name);
    await audit(page, `empty ${name}`);
  }
});

await test('failures-are-not-empty', {}, async ({ mock, page, faults, shot }) => {
  await signIn(page, mock);
  faults.allow.push(/status of 503/);
  mock.fail('servers', 503);
  mock.fail('runs', 503);
  for (const [address, words] of [['/servers', 'The servers could not be loaded'], ['/backups/schedules', 'The schedules could not be loaded'], ['/backups/history', 'The history could not be loaded']]) {
    await page.goto(mock.url + address);
    await page.getByText(words).waitFor();
    if (await page.getByText(/yet$/).count()) throw new Error(`${address} looks empty although it failed`);
    await shot(words.replaceAll(' ', '-'));
  }
  mock.fail('runs', 0);
  mock.fail('servers', 0);
  await page.getByRole('button', { name: 'Try again' }).first().click();
  await page.locator('a[data-run]').first().waitFor();
});

await test('controller-goes-away-and-comes-back', {}, async ({ mock, page, faults, shot }) => {
  await signIn(page, mock);
  await page.getByText('Live', { exact: true }).first().waitFor();
  faults.allow.push(/ERR_|Failed to load/);
  mock.down(true);
  await page.getByText('Reconnecting.').waitFor();
  await until('the table to stay', 5, () => page.getByText('web1').first().isVisible());
  await shot('reconnecting');
  await audit(page, 'reconnecting');
  mock.down(false);
  await page.getByText('Live', { exact: true }).first().waitFor({ timeout: 20_000 });
});

await test('a-stale-edit-is-not-saved-over-another', {}, async ({ mock, page, faults, shot }) => {
  const web1 = mock.world.servers.find((s) => s.name === 'web1');
  await signIn(page, mock, `/backups/schedules/${web1.id}/nightly`);
  await settled(page);
  await page.getByLabel('Time', { exact: true }).fill('05:45');
  const plan = mock.world.schedules.get(web1.id)[0];
  plan.revision += 1;
  plan.when = 'daily 03:33';
  faults.allow.push(/status of 412/);
  await page.getByRole('button', { name: 'Save changes' }).click();
  await page.getByRole('heading', { name: 'Somebody else changed this schedule' }).waitFor();
  await shot('stale');
  await audit(page, 'stale');
  if (plan.when !== 'daily 03:33') throw new Error('the other text was lost');
  await page.getByRole('button', { name: 'Save mine over it' }).click();
  await page.locator('tr[data-schedule="nightly"]').first().waitFor();
  if (plan.when !== 'daily 05:45 Europe/Berlin') throw new Error(`saved ${plan.when}`);
});

await test('a-refused-field-says-why', {}, async ({ mock, page, faults, shot }) => {
  const web1 = mock.world.servers.find((s) => s.name === 'web1');
  await signIn(page, mock, `/backups/schedules/${web1.id}/shop-db`);
  await settled(page);
  await page.locator('.segments').getByText('Custom', { exact: true }).click();
  await page.getByLabel('Calendar').fill('monthly 32 02:00');
  faults.allow.push(/status of 422/);
  await page.getByRole('button', { name: 'Save changes' }).click();
  await page.locator('.wrong').getByText('is not a time that ever comes').waitFor();
  await shot('refused');
  await audit(page, 'refused');
});

await test('switch-and-remove', {}, async ({ mock, page, shot }) => {
  const web1 = mock.world.servers.find((s) => s.name === 'web1');
  await signIn(page, mock, `/backups/schedules?server=${web1.id}`);
  const row = page.locator('tr[data-schedule="sites"]');
  await row.getByRole('switch').click();
  await until('the switch to be saved', 5, () => mock.world.schedules.get(web1.id)[2].enabled);
  await page.getByRole('link', { name: 'sites', exact: true }).click();
  await page.getByRole('button', { name: 'Delete…' }).click();
  const button = page.getByRole('button', { name: 'Delete sites' });
  if (await button.isEnabled()) throw new Error('it can be deleted before its name is typed');
  await shot('confirm');
  await audit(page, 'confirm');
  await page.getByLabel('Type sites to confirm').fill('sites');
  await button.click();
  await until('the schedule to be gone', 5, () => mock.world.schedules.get(web1.id).length === 2);
});

await test('keyboard-only', {}, async ({ mock, page }) => {
  await signIn(page, mock);
  await page.keyboard.press('Tab');
  const skip = await page.evaluate(() => document.activeElement?.textContent);
  if (skip !== 'Skip to content') throw new Error(`the first stop is ${skip}`);
  await page.getByRole('button', { name: 'Add server', exact: true }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Add a server' }).waitFor();
  await page.keyboard.type('web9');
  await page.keyboard.press('Enter');
  await page.getByTestId('join-command').waitFor();
  await page.keyboard.press('Escape');
  await until('the dialog to close and focus to return', 5, () => page.evaluate(() => document.querySelector('dialog') === null && document.activeElement?.textContent?.includes('Add server')));
  await page.getByRole('radio', { name: 'Dark' }).first().focus();
  await page.keyboard.press('Space');
  if ((await page.evaluate(() => document.documentElement.dataset.theme)) !== 'dark') throw new Error('the theme did not change');
  await page.reload();
  await settled(page);
  if ((await page.evaluate(() => document.documentElement.dataset.theme)) !== 'dark') throw new Error('the theme was forgotten');
});

await test('forced-colours-and-reduced-motion', { forcedColors: 'active', reducedMotion: 'reduce' }, async ({ mock, page, shot }) => {
  await signIn(page, mock, '/backups/history');
  await settled(page);
  await shot('history');
});

if (failures.length > 0) {
  console.error(`\n${failures.join('\n')}`);
  process.exit(1);
}
