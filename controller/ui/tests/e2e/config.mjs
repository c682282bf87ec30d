// What the journey needs to know: from a JSON file named by BACKSTAY_E2E, and from BACKSTAY_E2E_* over it.

const DEFAULTS = {
  url: '', setup_token: '', user: 'anna', password: '', server: 'web1', join_file: 'join-command.txt', schedule: 'nightly',
  scope: 'Full', when: '', destinations: ['local'], result: 'OK', restore: '/var/tmp/restored', progress_steps: 2, timeout_secs: 120,
  shots: '', result_file: '', chromium: '/usr/bin/chromium',
};
const NEEDED = ['url', 'setup_token', 'password'];

export function readConfig(env, read) {
  const config = { ...DEFAULTS, ...(env.BACKSTAY_E2E ? JSON.parse(read(env.BACKSTAY_E2E)) : {}) };
  for (const key of Object.keys(DEFAULTS)) {
    const value = env[`BACKSTAY_E2E_${key.toUpperCase()}`];
    if (value === undefined) continue;
    config[key] = Array.isArray(DEFAULTS[key]) ? value.split(',') : typeof DEFAULTS[key] === 'number' ? Number(value) : value;
  }
  const unknown = Object.keys(config).filter((key) => !(key in DEFAULTS));
  if (unknown.length > 0) throw new Error(`not a setting of the journey: ${unknown.join(', ')}`);
  const missing = NEEDED.filter((key) => config[key] === '');
  if (missing.length > 0) throw new Error(`the journey needs ${missing.map((k) => `BACKSTAY_E2E_${k.toUpperCase()}`).join(', ')}`);
  config.url = config.url.replace(/\/$/, '');
  return config;
}
