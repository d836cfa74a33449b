// The dashboard's page: it asks what there is twice a second, and sends what a user wants done.

const KEY = "bit_transformer token"; // of the token in sessionStorage
const WANTS = "What changes anything wants the token that the server printed at its start.";
const WAITS = "What else changes the model waits for the run.";
const EVERY = 500; // milliseconds
const KEPT = 20000; // records that curves are drawn of
const BITS_PER_BYTE = 9;
const UNDER_WAY = ["running", "stopping"];

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const number = (value, digits = 4) => (value === null || value === undefined ? "no number" : Number(value.toPrecision(digits)).toString());
const spoken = (seconds) => (seconds < 100 ? `about ${plural(Math.ceil(seconds), "second")}` : `about ${plural(Math.round(seconds / 60), "minute")}`);
const plural = (count, name) => `${whole.format(count)} ${name}${count === 1 ? "" : "s"}`;

let seen = { status: { ready: false }, run: { state: "none" } }; // what was last heard
let records = []; // of updates, by their steps
let heard = false; // whether the server answers
let busy = 0; // requests under way that others wait for
let lost = null; // what had the focus when it was disabled
let ended = ""; // what was last said of the run
let looking = Promise.resolve(); // one look at a time: each goes on from the records of the one before
let shown = null; // the attention map
let at = [0, 0]; // the cell of it that is read

// Asking

async function ask(path, body) {
  const options = { cache: "no-store" };
  if (body !== undefined) {
    const token = sessionStorage.getItem(KEY) ?? (await askForToken(WANTS));
    options.method = "POST";
    options.headers = { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
    options.body = JSON.stringify(body);
  }
  let answer, said;
  try {
    answer = await fetch(path, options);
    said = await answer.json();
  } catch {
    throw new Error("the server does not answer: is it still running?");
  }
  if (answer.status === 401) {
    forget();
    await askForToken("That was not the token: take the one that the server printed at its start.");
    return ask(path, body);
  }
  if (!answer.ok) throw new Error(said.error);
  return said;
}

function askForToken(reason) {
  const dialog = $("ask");
  $("ask-said").textContent = reason;
  $("token").value = "";
  return new Promise((resolve, reject) => {
    $("ask-form").onsubmit = (event) => {
      event.preventDefault();
      const token = $("token").value.trim().replace(/^Bearer\s+/i, "");
      if (!/^[\x21-\x7e]+$/.test(token)) {
        $("ask-said").textContent = "A token is made of visible ASCII characters, without a space.";
        return;
      }
      sessionStorage.setItem(KEY, token);
      $("token").value = "";
      dialog.onclose = null;
      dialog.close();
      resolve(token);
    };
    $("cancel").onclick = () => dialog.close();
    dialog.onclose = () => reject(new Error("nothing was sent: it wants the token"));
    if (!dialog.open) dialog.showModal();
  });
}

function forget() {
  sessionStorage.removeItem(KEY);
  render();
}

function look() {
  looking = looking.then(lookOnce);
  return looking;
}

async function lookOnce() {
  try {
    const since = records.length ? records[records.length - 1].step : 0;
    const [status, progress] = await Promise.all([ask("status"), ask(`progress?since=${since}`)]);
    heard = true;
    seen = { status, ...progress };
    if (!take(progress.records) && (since || status.step)) take((await ask("progress")).records, true);
  } catch {
    heard = false;
  }
  render();
}

// Add records to those that are here; false where they do not go on from these, as the model is another.
function take(news, anew = false) {
  if (anew) records = news;
  else {
    const last = records[records.length - 1];
    if (last && JSON.stringify(news[0]) !== JSON.stringify(last)) {
      records = [];
      return false;
    }
    records = records.concat(last ? news.slice(1) : news).slice(-KEPT);
  }
  return true;
}

async function watch() {
  if (!document.hidden) await look();
  setTimeout(watch, EVERY);
}

async function listSnapshots() {
  const { snapshots } = await ask("snapshots");
  $("names").replaceChildren(...snapshots.map((name) => Object.assign(document.createElement("option"), { value: name })));
  $("kept").textContent = snapshots.length ? `There are: ${snapshots.join(", ")}` : "No snapshots yet.";
}

// Showing

function say(id, text, isBad = false) {
  $(id).textContent = text;
  $(id).classList.toggle("bad", isBad);
}

function set(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text; // what did not change is not read aloud again
}

function render() {
  const { status, run, gate } = seen;
  const isRunning = UNDER_WAY.includes(run.state);
  renderState(status, isRunning, gate);
  renderModel(status);
  if (gate) renderGate(gate);
  renderRun(status, run, isRunning);
  renderCurves();
  enable({ free: !isRunning && !busy, model: status.ready && !isRunning && !busy, run: run.state === "running" });
  $("forget").disabled = sessionStorage.getItem(KEY) === null;
}

function renderState(status, isRunning, gate) {
  let [text, kind] = ["no model yet", ""];
  if (!heard) [text, kind] = ["the server does not answer", "bad"];
  else if (isRunning) [text, kind] = ["training", "busy"];
  else if (status.ready && gate.tripped) [text, kind] = ["stopped by the gate", "bad"];
  else if (busy) [text, kind] = ["at work", "busy"];
  else if (status.ready) [text, kind] = ["ready", "good"];
  set("state", text);
  $("state").className = `chip ${kind}`;
}

function renderModel(status) {
  if (!status.ready) {
    for (const id of ["parameters", "step", "shape", "length", "windows", "rate"]) set(id, "–");
    return;
  }
  const { config } = status;
  set("parameters", whole.format(status.parameters));
  set("step", whole.format(status.step));
  set("shape", `${config.num_layers} × ${config.d_model}`);
  set("length", whole.format(config.max_seq_len));
  set("windows", config.chunk_size === null ? "dense" : `chunks of ${config.chunk_size} + ${config.overlap}`);
  set("rate", number(status.lr, 3));
}

function renderGate(gate) {
  const last = records.length ? records[records.length - 1].val_loss : null;
  const value = gate.average ?? last;
  const name = value === null ? "No loss yet" : `${gate.average === null ? "Last loss" : "Average"} ${number(value)}`;
  const burnIn = gate.steps < gate.burn_in_steps ? `; it judges after ${plural(gate.burn_in_steps, "update")}` : "";
  set("gate-said", `${name}, of at most ${number(gate.threshold)} nats a bit${gate.tripped ? ": it has stopped the training" : burnIn}`);
  const most = 1.5 * gate.threshold;
  const filled = gate.tripped && value === null ? most : Math.min(value ?? 0, most);
  $("gate").ariaValueMax = most;
  $("gate").ariaValueNow = filled;
  $("gate-fill").style.width = `${(100 * filled) / most}%`;
  $("gate").classList.toggle("bad", gate.tripped || filled > gate.threshold);
}

function renderRun(status, run, isRunning) {
  const { state, updates, planned, seconds } = run;
  const made = `${whole.format(updates ?? 0)} of ${plural(planned ?? 0, "update")}`;
  const left = updates ? (seconds / updates) * (planned - updates) : 0;
  const text = {
    none: status.ready ? `${plural(planned ?? 0, "update")} planned` : "No run yet",
    running: updates ? `${made}, ${spoken(left)} left` : made,
    stopping: `${made}, stopping after the one under way`,
    done: `${made}: done in ${number(seconds ?? 0, 2)} s`,
    stopped: `${made}: stopped`,
    failed: `${made}: ended`,
  }[state];
  set("progress-said", text);
  $("progress").max = planned || 1;
  $("progress").value = state === "none" ? 0 : updates;
  const said = run.reason ?? (isRunning ? WAITS : "");
  if (said !== ended) say("run-said", said, run.reason !== null); // else it stays, with what a button has led to
  ended = said;
}

function enable(can) {
  for (const fieldset of document.querySelectorAll("fieldset[data-needs]")) {
    const isOff = !can[fieldset.dataset.needs];
    if (isOff && !fieldset.disabled && fieldset.contains(document.activeElement)) lost = document.activeElement;
    fieldset.disabled = isOff;
  }
  const next = lost === $("stop") ? $("run") : lost;
  if (next && !next.matches(":disabled")) {
    if ([document.body, lost].includes(document.activeElement)) next.focus({ preventScroll: true }); // a keyboard's user goes on
    lost = null;
  }
}

// Doing: what is said of it stands where it was asked for

async function act(place, doing, work) {
  say(place, doing);
  busy += 1;
  render();
  try {
    say(place, (await work()) ?? "");
  } catch (error) {
    say(place, error.message, true);
  } finally {
    busy -= 1;
  }
  await look();
}

function on(id, event, handler) {
  $(id).addEventListener(event, (happened) => {
    happened.preventDefault();
    handler(happened);
  });
}

function options(group) {
  const chosen = {};
  for (const input of document.querySelectorAll(`[data-group="${group}"]`)) {
    if (input.dataset.kind === "boolean") chosen[input.name] = { "": null, true: true, false: false }[input.value];
    else chosen[input.name] = input.value === "" ? null : input.valueAsNumber;
  }
  return chosen;
}

on("start", "submit", () =>
  act("start-said", "Making the model…", async () => {
    const made = await ask("init", { text: $("text").value, config: options("config"), plan: options("plan") });
    return `Made, to be trained on ${plural(made.plan.rows, "row")}.`;
  }),
);

on("file", "change", async () => {
  const [file] = $("file").files;
  if (file) $("text").value = await file.text();
});

on("run", "click", () =>
  act("run-said", "Starting…", async () => {
    seen.run = await ask("run", {});
    render();
    $("stop").focus();
    return WAITS;
  }),
);

on("stop", "click", async () => {
  try {
    seen.run = await ask("stop", {});
  } catch (error) {
    say("run-said", error.message, true);
  }
  render();
});

on("step-form", "submit", () =>
  act("step-said", "Training a step…", async () => {
    const made = await ask("train_step", { text: $("step-text").value });
    return `Update ${made.step}: its loss was ${number(made.loss)} nats a bit.`;
  }),
);

for (const button of $("grow").querySelectorAll("button")) {
  button.addEventListener("click", () =>
    act("grow-said", "Growing…", async () => {
      const made = await ask("scale_up", { dimension: button.value });
      return `Grown to ${plural(made.parameters, "parameter")}.`;
    }),
  );
}

on("snapshots", "submit", (event) => {
  const name = $("name").value;
  if (event.submitter?.value === "download") {
    const text = $("with-text").checked ? $("text").value : null;
    act("snapshots-said", "Reading…", async () => {
      const made = await ask("download", { name, text });
      return `Went on from ${name}, after ${plural(made.step, "update")}.`;
    });
  } else {
    act("snapshots-said", "Writing…", async () => {
      const { file } = await ask("save", { name });
      await listSnapshots();
      return `Saved as ${file}.`;
    });
  }
});

on("write", "submit", () =>
  act("write-said", "Writing…", async () => {
    const text = $("prompt").value;
    const said = await ask("generate", { text, bytes: $("bytes").valueAsNumber, temperature: $("temperature").valueAsNumber });
    $("written-prompt").textContent = text;
    $("written-text").textContent = said.text;
    return `Negentropy ${number(said.negentropy, 3)}, complexity ${number(said.lz_complexity, 3)}, symbiosis ${number(said.symbiosis, 3)}.`;
  }),
);

on("attention", "submit", () =>
  act("attention-said", "Looking…", async () => {
    const text = $("seen").value;
    const said = await ask("attention", { text, layer: $("layer").valueAsNumber, head: $("head").valueAsNumber });
    shown = { ...said, bytes: new TextEncoder().encode(text) };
    at = [said.bits.length - 1, said.bits.length - 1];
    document.querySelector(".map").hidden = false;
    drawMap();
    return `Layer ${said.layer}, head ${said.head}: ${plural(said.bits.length, "bit")}.`;
  }),
);

on("forget", "click", forget);

// A field that is wrong is shown, wherever it is folded away.
document.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);

// Curves

function renderCurves() {
  draw("loss", ["loss", "val_loss"], false);
  draw("lr", ["lr"], true);
  const last = records[records.length - 1];
  if (!last) {
    set("loss-said", "Loss, nats a bit: no updates yet");
    set("lr-said", "Learning rate: no updates yet");
    return;
  }
  const held = records.some((each) => each.val_loss !== each.loss) ? `, held out ${number(last.val_loss)} (dashed)` : "";
  const first = `${number(records[0].loss)} at update ${whole.format(records[0].step)}`;
  set("loss-said", `Loss, nats a bit: ${number(last.loss)} at update ${whole.format(last.step)}${held}, ${first}`);
  set("lr-said", `Learning rate: ${number(last.lr, 3)} at update ${whole.format(last.step)}`);
}

function part(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Steps of 1, 2 or 5 times a power of ten that cut a range into about so many parts.
function ticks(low, high, count, least = 0) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(power * [1, 2, 5, 10].find((each) => each * power >= rough), least);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) found.push(n * step + 0); // no -0
  return found;
}

// At most so many points: of neighbours that share a pixel, the mean.
function thinned(points, most) {
  const size = Math.ceil(points.length / most);
  if (size < 2) return points;
  const found = [];
  for (let n = 0; n < points.length; n += size) {
    const group = points.slice(n, n + size);
    found.push([group[group.length - 1][0], group.reduce((sum, [, y]) => sum + y, 0) / group.length]);
  }
  return found;
}

function draw(id, names, fromZero) {
  const svg = $(id);
  const [width, height] = [svg.clientWidth, svg.clientHeight];
  const stamp = `${width} ${records.length} ${records[0]?.step} ${JSON.stringify(records[records.length - 1])}`;
  if (svg.stamp === stamp) return;
  svg.stamp = stamp;
  const lines = names.map((name) => records.filter((each) => each[name] !== null).map((each) => [each.step, each[name]]));
  if (lines.length > 1 && !records.some((each) => each[names[0]] !== each[names[1]])) lines.pop();
  const points = lines.flat();
  const box = { left: 56, right: width - 12, top: 10, bottom: height - 24 };
  const frame = part("path", { class: "grid", fill: "none", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}` });
  if (!points.length) {
    svg.replaceChildren(frame);
    return;
  }
  let [x0, x1, y0, y1] = [Infinity, -Infinity, fromZero ? 0 : Infinity, -Infinity];
  for (const [x, y] of points) [x0, x1, y0, y1] = [Math.min(x0, x), Math.max(x1, x), Math.min(y0, y), Math.max(y1, y)];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  const room = (y1 - y0) * 0.06 || Math.abs(y1) * 0.1 || 1;
  [y0, y1] = [fromZero ? 0 : y0 - room, y1 + room];
  const X = (x) => box.left + ((x - x0) / (x1 - x0)) * (box.right - box.left);
  const Y = (y) => box.bottom - ((y - y0) / (y1 - y0)) * (box.bottom - box.top);
  const parts = [frame];
  for (const y of ticks(y0, y1, height / 45)) {
    parts.push(part("line", { class: "grid", x1: box.left, x2: box.right, y1: Y(y), y2: Y(y) }));
    parts.push(part("text", { class: "axis", x: box.left - 6, y: Y(y) + 4, "text-anchor": "end" }, number(y, 3)));
  }
  for (const x of ticks(x0, x1, Math.max(width / 110, 2), 1)) {
    if (x >= 0) parts.push(part("text", { class: "axis", x: X(x), y: box.bottom + 16, "text-anchor": "middle" }, whole.format(x)));
  }
  lines.forEach((line, n) => {
    const kind = n ? " second" : "";
    const drawn = thinned(line, width).map(([x, y]) => `${X(x).toFixed(1)} ${Y(y).toFixed(1)}`);
    if (!drawn.length) return;
    parts.push(part("path", { class: `curve${kind}`, d: `M${drawn.join("L")}` }));
    const [x, y] = line[line.length - 1];
    parts.push(part("circle", { class: `dot${kind}`, cx: X(x), cy: Y(y), r: 3.5 }));
  });
  svg.replaceChildren(...parts);
}

// The attention map

function drawMap() {
  if (!shown) return;
  const [canvas, size] = [$("map"), shown.map.length];
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const [none, all] = isDark ? [[16, 19, 21], [138, 180, 248]] : [[255, 255, 255], [11, 87, 208]];
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size);
  shown.map.forEach((row, y) =>
    row.forEach((weight, x) => {
      const share = Math.sqrt(Math.min(weight ?? 0, 1)); // small weights are to be seen too
      const place = 4 * (y * size + x);
      for (let n = 0; n < 3; n += 1) image.data[place + n] = none[n] + share * (all[n] - none[n]);
      image.data[place + 3] = 255;
    }),
  );
  canvas.getContext("2d").putImageData(image, 0, 0);
  read(...at);
}

function read(row, column) {
  const last = shown.map.length - 1;
  at = [row, column].map((each) => Math.max(0, Math.min(each, last)));
  const [looks, sees] = at.map(nameOf);
  set("weight", `${looks} looks at ${sees}: ${number(shown.map[at[0]][at[1]], 3)}`);
}

function nameOf(position) {
  const place = position + BITS_PER_BYTE * shown.bytes.length - shown.bits.length; // the map shows the end of the text
  const byte = shown.bytes[Math.floor(place / BITS_PER_BYTE)];
  const sign = byte > 32 && byte < 127 ? `“${String.fromCharCode(byte)}”` : `byte ${byte}`;
  const bit = place % BITS_PER_BYTE;
  return bit === BITS_PER_BYTE - 1 ? `the parity of ${sign}` : `bit ${bit + 1} of ${sign}`;
}

$("map").addEventListener("pointermove", (event) => {
  const { left, top, width, height } = $("map").getBoundingClientRect();
  const size = shown.map.length;
  read(Math.floor(((event.clientY - top) / height) * size), Math.floor(((event.clientX - left) / width) * size));
});

$("map").addEventListener("keydown", (event) => {
  const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!move) return;
  event.preventDefault();
  read(at[0] + move[0], at[1] + move[1]);
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
new ResizeObserver(renderCurves).observe($("loss"));
listSnapshots().catch(() => {});
watch();
