'use strict';
// Loads the file that is named, whatever it exports and however, and writes that to standard output behind a mark.
const fs = require('fs');
const path = require('path');
const url = require('url');
const Module = require('module');
const { spawnSync } = require('child_process');

const [file, mark] = process.argv.slice(1);
process.argv = [process.argv[0], file];
const print = (what) => {
  let rest = Buffer.from(`\n${mark}${JSON.stringify(what)}\n`);
  while (rest.length) {
    try {
      rest = rest.subarray(fs.writeSync(1, rest));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
};
// What the file says is for people.
process.stdout.write = process.stderr.write.bind(process.stderr);

const asCommonJs = () => {
  const module = new Module(file, null);
  module.filename = file;
  module.paths = Module._nodeModulePaths(path.dirname(file));
  module._compile(fs.readFileSync(file, 'utf8'), file);
  return { default: module.exports };
};
const DETECTS = '--experimental-detect-module';
const load = async () => {
  // `node -e` has these for everybody, modules too, and puts some of them back when the script has run.
  await new Promise(setImmediate);
  const names = Module.builtinModules.filter((name) => !['process', 'console', 'crypto'].includes(name));
  for (const name of [...names, 'exports', 'require', '__filename', '__dirname']) delete globalThis[name];
  try {
    return await import(url.pathToFileURL(file));
  } catch (error) {
    // Written for the other kind of module than the folder's package.json says.
    if (error instanceof ReferenceError && /(module|exports|require) is not defined/.test(error.message)) {
      return asCommonJs();
    }
    const isModule = error instanceof SyntaxError && /import statement|export|await is only/.test(error.message);
    if (isModule && !process.execArgv.includes(DETECTS) && process.allowedNodeEnvironmentFlags.has(DETECTS)) {
      const again = [DETECTS, ...process.execArgv, file, mark];
      const done = spawnSync(process.execPath, again, { stdio: ['ignore', 1, 2] });
      process.exit(done.status ?? 1);
    }
    throw error;
  }
};
const exported = async () => {
  const all = await load();
  let value = all.default;
  if (value && value.__esModule && value.default !== undefined) value = value.default;
  const isPlain = value === undefined || (value && typeof value === 'object' && value.apps === undefined);
  if (isPlain && all.apps !== undefined) value = { ...all, default: undefined };
  if (typeof value === 'function') value = value();
  return await value;
};
// Where it is, Node says of its own modules only when asked.
const place = (error) => {
  const stack = String(error && error.stack);
  if (!(error instanceof SyntaxError) || stack.includes(file)) return stack;
  return String(spawnSync(process.execPath, ['--check', file]).stderr);
};
const code = (what, source) => ({ [mark]: [what, String(source)] });
const plain = function (key, value) {
  const raw = this[key];
  if (raw instanceof RegExp) return code('a regular expression', raw.source);
  if (typeof value === 'function') return code('a function', value.name ? `function ${value.name}` : 'a function');
  if (typeof value === 'symbol') return code('a symbol', value.toString());
  if (typeof value === 'bigint') return code('a bigint', value);
  if (typeof value === 'number' && !Number.isFinite(value)) return code('no number', value);
  return value;
};
exported().then(
  (value) => {
    if (value === undefined) throw new TypeError('the file exports nothing');
    return JSON.parse(JSON.stringify(value, plain));
  },
).then(
  (value) => print({ value }),
  (error) => print({ error: { message: String((error && error.message) || error), stack: place(error) } }),
).finally(() => process.exit(0));
