// The journey of the first hour, step by step, in a real browser: from the set-up link to a restored snapshot.
// It knows nothing about what stands behind the address: the double, or a real controller with real servers.
import { camera, until } from './browser.mjs';

/**
 * @param page   a Playwright page
 * @param config see README.md beside this file
 * @param hooks  { join(command): runs the line on the server, log(text), check(name): called on each finished screen }
 */
export async function journey(page, config, hooks) {
  const shot = camera(page, config.shots);
  const wait = config.timeout_secs;
  const step = async (name, run) => {
    const began = Date.now();
    await run();
    await shot(name);
    await hooks.check?.(name);
    hooks.log(`${name}: ${((Date.now() - began) / 1000).toFixed(1)} s`);
  };
  const facts = {};
  page.setDefaultTimeout(Math.min(wait, 30) * 1000);

  await step('setup', async () => {
    await page.goto(`${config.url}/setup#${config.setup_token}`);
    await page.getByLabel('Name', { exact: true }).fill(config.user);
    await page.getByLabel('Account password').fill(config.password);
    await page.getByLabel('The same password again').fill(config.password);
    await shot('setup-filled');
    await page.getByRole('button', { name: 'Make the account' }).click();
    await page.getByRole('heading', { name: 'Servers', level: 1 }).waitFor();
    await until('the list of servers', wait, async () => (await page.locator('.skeleton').count()) === 0);
    if (page.url().includes(config.setup_token)) throw new Error('the set-up token is still in the address');
  });

  await step('login', async () => {
    await page.getByRole('button', { name: 'Sign out' }).first().click();
    await page.getByLabel('Name', { exact: true }).fill(config.user);
    await page.getByLabel('Account password').fill(`not ${config.password}`);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('Name or password is wrong.').waitFor();
    await shot('login-refused');
    await page.getByLabel('Account password').fill(config.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('heading', { name: 'Servers', level: 1 }).waitFor();
  });

  await step('add-server', async () => {
    await page.getByRole('button', { name: 'Add server', exact: true }).click();
    await page.getByLabel('Name of the server').fill(config.server);
    await page.getByRole('button', { name: 'Continue' }).click();
    const command = await page.getByTestId('join-command').textContent();
    await page.getByText('Waiting for the server…').waitFor();
    await shot('join-command');
    await hooks.check?.('join-command');
    await hooks.join(command.trim());
    await page.getByTestId('server-joined').waitFor({ timeout: wait * 1000 });
  });

  await step('server', async () => {
    await page.getByRole('link', { name: `Open ${config.server}` }).click();
    await page.getByRole('heading', { name: config.server, level: 1 }).waitFor();
    await page.getByText('Online').first().waitFor();
    await page.getByRole('heading', { name: 'Destinations' }).waitFor();
    await until(`destination ${config.destinations[0]} to be reported`, wait, () => page.locator('.list strong').getByText(config.destinations[0], { exact: true }).isVisible());
  });

  await step('create-schedule', async () => {
    await page.getByRole('link', { name: 'New schedule' }).click();
    await page.getByRole('heading', { name: 'New schedule' }).waitFor();
    await page.getByLabel('Name', { exact: true }).fill(config.schedule);
    await page.getByRole('radio', { name: new RegExp(`^${config.scope}`) }).check();
    if (config.when) {
      await page.locator('.segments').getByText('Custom', { exact: true }).click();
      await page.getByLabel('Calendar').fill(config.when);
    }
    for (const name of config.destinations) await page.locator(`input[name="destination"][value="${name}"]`).check();
    const toml = await page.getByTestId('toml').textContent();
    if (!toml.includes(`[schedule.${config.schedule}]`)) throw new Error(`the preview does not show the schedule: ${toml}`);
    await shot('schedule-form', { fullPage: true });
    await hooks.check?.('schedule-form');
    await page.getByRole('button', { name: 'Create schedule' }).click();
    await page.locator(`tr[data-schedule="${config.schedule}"]`).waitFor();
  });

  await step('applied', async () => {
    await page.getByRole('link', { name: 'Servers' }).first().click();
    const row = page.locator(`tr[data-server="${config.server}"]`);
    await row.getByText(/^Applied \d+$/).waitFor({ timeout: wait * 1000 });
  });

  await step('run-now', async () => {
    await page.getByRole('link', { name: 'Backups' }).first().click();
    const row = page.locator(`tr[data-schedule="${config.schedule}"]`);
    await row.getByRole('button', { name: /^Run now/ }).click();
    const strip = page.getByTestId('active-tasks');
    await strip.waitFor({ timeout: wait * 1000 });
    await strip.getByRole('button', { name: 'Details' }).click();
    const seen = new Set();
    await until('the progress to move', wait, async () => {
      const part = async (name) => (await strip.getByTestId(`task-${name}`).allTextContents()).join();
      const text = [await part('phase'), await part('bytes'), await part('entries')].join(' ').trim();
      if (text !== '') seen.add(text);
      return seen.size >= config.progress_steps;
    }, 50);
    facts.progress = [...seen];
    await shot('progress');
    await until('the run to end', wait, async () => (await row.getByRole('button', { name: /^Run now/ }).count()) === 1);
    await row.getByText(config.result, { exact: true }).waitFor({ timeout: wait * 1000 });
  });

  await step('log', async () => {
    await page.getByRole('link', { name: 'History', exact: true }).first().click();
    const rows = page.locator('a[data-run]').filter({ hasText: config.schedule });
    await rows.first().waitFor({ timeout: wait * 1000 });
    facts.run = await rows.first().getAttribute('data-run');
    await rows.first().click();
    await page.getByTestId('run-state').waitFor();
    const log = await page.getByTestId('run-log').textContent();
    if (log.trim() === '') throw new Error('the log is empty');
    facts.log_lines = log.trim().split('\n').length;
    for (const name of config.destinations) await page.locator('.copies').getByText(name, { exact: true }).waitFor();
  });

  await step('restore', async () => {
    await page.getByRole('link', { name: 'Restore this snapshot' }).click();
    await page.getByRole('heading', { name: 'Restore', level: 1 }).waitFor();
    await page.getByRole('button', { name: /^Ask .* again$|^Ask / }).first().waitFor();
    const chosen = page.locator('input[name="snapshot"]:checked');
    const listed = await chosen.waitFor({ state: 'attached', timeout: 3_000 }).then(() => true, () => false);
    if (!listed) {
      await page.getByRole('button', { name: /^Ask / }).first().click();
      await page.locator('input[name="snapshot"]').first().waitFor({ state: 'attached', timeout: wait * 1000 });
      if ((await chosen.count()) === 0) await page.locator('.snapshots label').first().click();
    }
    facts.snapshot = await chosen.getAttribute('value');
    if (config.restore === 'in_place') {
      await page.getByRole('radio', { name: /^In place/ }).check();
    } else {
      await page.getByRole('radio', { name: /^Into a directory/ }).check();
      await page.getByLabel(`Directory on ${config.server}`).fill(config.restore);
    }
    const button = page.getByRole('button', { name: /^Restore (over|into)/ });
    if (await button.isEnabled()) throw new Error('the restore can be pressed before the name is typed');
    await page.getByLabel(`Type ${config.server} to confirm`).fill(config.server);
    await shot('restore-confirmed', { fullPage: true });
    await hooks.check?.('restore-confirmed');
    await button.click();
    const operation = page.getByTestId('operation');
    await operation.waitFor();
    await shot('restore-requested');
    const state = await until('the restore to end', wait, async () => {
      const now = await operation.getAttribute('data-state');
      return ['done', 'failed', 'expired'].includes(now) ? now : undefined;
    });
    facts.restore = state;
    facts.operation = page.url().split('/').pop().split('?')[0];
    if (state !== 'done') throw new Error(`the restore is ${state}: ${await page.locator('main').textContent()}`);
  });
  return facts;
}
