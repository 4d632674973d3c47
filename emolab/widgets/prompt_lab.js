// The front end of the prompt lab. State lives in Python (prompt_lab.py); here it is drawn and edited.
// Every text reaches the page through textContent. Edits wait 150 ms, then go out with a serial number; the kernel
// answers with the number of the edit it has seen, and while the two differ the lab says that it computes.

const DELAY = 150;
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const MODES = { one: "One prompt", compare: "Compare two", sweep: "Sweep a number" };
const ROLES = ["system", "user", "assistant"];

// --- the figures -----------------------------------------------------------------------------------------------

// Lines of scores [place, emotion] over places; `labels` stand below, `range` is [low, high].
function chart(label, emotions, places, score, labels, range) {
  const [left, top, height] = [46, 12, 180];
  const below = labels.length ? 84 : 16;
  const width = Math.max(620, Math.min(places.length * 15, 16000)) + left + 12;
  const [low, high] = range;
  const span = places[places.length - 1] - places[0] || 1;
  const x = (i) => left + ((places[i] - places[0]) / span) * (width - left - 12);
  const y = (value) => top + ((high - value) / (high - low || 1)) * height;
  const frame = svg("svg", { role: "img", "aria-label": label, width, height: height + top + below });
  for (const value of [low, 0, high]) {
    frame.append(svg("line", { x1: left, x2: width - 12, y1: y(value), y2: y(value), class: value ? "faint" : "zero" }));
    frame.append(svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(3)).toString()));
  }
  emotions.forEach((name, e) => {
    const points = places.map((_, i) => [x(i), y(score(i, e))]).filter(([, at]) => Number.isFinite(at));
    const line = svg("polyline", {
      points: points.map((point) => point.map((part) => part.toFixed(1)).join(",")).join(" "),
      stroke: LINES[e % LINES.length],
      "stroke-dasharray": DASHES[Math.floor(e / 2) % DASHES.length],
      class: "track",
      "data-emotion": name,
    });
    line.append(svg("title", {}, name));
    frame.append(line);
  });
  labels.forEach((text, i) => {
    const [at, base] = [x(i) + 3, top + height + 14];
    const turn = `rotate(-60 ${at} ${base})`;
    frame.append(svg("text", { x: at, y: base, "text-anchor": "end", transform: turn }, text.trim().slice(0, 14)));
  });
  const cursor = svg("line", { y1: top, y2: top + height, class: "cursor", visibility: "hidden" });
  frame.append(cursor);
  const point = (i) => {
    cursor.setAttribute("visibility", i === null ? "hidden" : "visible");
    if (i !== null) ["x1", "x2"].forEach((end) => cursor.setAttribute(end, x(i)));
  };
  return { node: make("div", { class: "scroll", tabIndex: 0, role: "group", "aria-label": `${label}, scrolls` }, frame), point };
}

function bars(label, pairs, scale) {
  const most = Math.max(scale, ...pairs.map(([, value]) => Math.abs(value)));
  const box = make("div", { class: "bars", role: "list", "aria-label": label });
  for (const [name, value] of pairs) {
    const bar = make("span", { class: "bar" });
    bar.style.width = `${(Math.abs(value) / most) * 100}%`;
    bar.style.background = colour(value > 0 ? most : -most, most);
    box.append(
      make("div", { role: "listitem", "aria-label": `${name} ${signed(value)}` },
        make("span", { class: "name" }, name), make("span", { class: "rail" }, bar), make("span", {}, signed(value))),
    );
  }
  return box;
}

const key = (emotions) =>
  make("div", { class: "key", "aria-hidden": "true" }, ...emotions.map((name, e) => {
    const sample = svg("svg", { width: 26, height: 10 });
    sample.append(svg("line", {
      x1: 0, x2: 26, y1: 5, y2: 5, class: "track", stroke: LINES[e % LINES.length],
      "stroke-dasharray": DASHES[Math.floor(e / 2) % DASHES.length],
    }));
    return make("span", {}, sample, ` ${name}`);
  }));

function extent(blocks) {
  let [low, high] = [0, 0];
  for (const block of blocks) for (const value of block) if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return low === high ? [-1, 1] : [low, high];
}

// One text: its strip, tracks and bars.
function drawSide(side, view, shown, range, detail) {
  const n = view.emotions.length;
  const name = side.title ? `Prompt ${side.title}` : "Prompt";
  const tell = (i) =>
    Number.isFinite(side.scores[i * n + shown])
      ? `${view.emotions[shown]} ${signed(side.scores[i * n + shown])}, rank ${side.ranks[i * n + shown]}`
      : "not scored (token 0 is unlike all others)";
  const heat = strip(`${name}, ${view.emotions[shown]} at each token`, side.tokens, side.roles,
    (i) => side.scores[i * n + shown], tell, view.scale);
  const labels = side.tokens.length <= 120 ? side.tokens : [];
  const tracks = chart(`${name}, tracks over tokens`, view.emotions, side.tokens.map((_, i) => i),
    (i, e) => side.scores[i * n + e], labels, range);
  for (const [event, on] of [["mouseover", true], ["focusin", true], ["mouseout", false], ["focusout", false]]) {
    heat.addEventListener(event, ({ target }) => {
      const number = target.dataset.number;
      if (number === undefined) return;
      tracks.point(on ? Number(number) : null);
      if (on) detail.textContent = `token ${number} ${target.getAttribute("aria-label")}`;
    });
  }
  const last = side.tokens.length - 1;
  const chosen = view.emotions.map((emotion, e) => [emotion, side.scores[last * n + e]]).filter(([, value]) => Number.isFinite(value));
  return make("section", { "aria-label": `${name}, reading` },
    ...(side.title ? [make("h4", {}, `${name}: ${view.emotions[shown]}`)] : [make("h4", {}, view.emotions[shown])]),
    heat, tracks.node,
    make("div", { class: "columns" },
      make("div", {}, make("h5", {}, "Last token: chosen"), bars(`${name}, chosen emotions at the last token`, chosen, view.scale)),
      make("div", {}, make("h5", {}, "Last token: highest"), bars(`${name}, highest emotions at the last token`, side.last, view.scale)),
      make("div", {}, make("h5", {}, "Whole text: highest"), bars(`${name}, highest emotions over the text`, side.top, view.scale))));
}

function drawDifference(gap, view, shown) {
  const n = view.emotions.length;
  const value = (i) => gap.scores[i * n + shown];
  const tell = (i) => (Number.isFinite(value(i)) ? `A - B ${signed(value(i))}` : "in one prompt only");
  return make("section", { "aria-label": "Difference" }, make("h4", {}, `A - B: ${view.emotions[shown]}, on shared tokens`),
    strip("Difference A - B at each token", gap.tokens, [], value, tell, view.scale, (i) => (Number.isFinite(value(i)) ? "" : "absent")));
}

function drawSweep(sweep, view) {
  const n = view.emotions.length;
  const order = sweep.x.map((_, i) => i).sort((a, b) => sweep.x[a] - sweep.x[b]);
  const wide = Math.min(...sweep.x) > 0 && Math.max(...sweep.x) / Math.min(...sweep.x) > 30;
  const places = order.map((i) => (wide ? Math.log(sweep.x[i]) : sweep.x[i]));
  const drawn = chart("Score of the last token against x", view.emotions, places, (i, e) => sweep.scores[order[i] * n + e],
    order.map((i) => sweep.labels[i]), extent([sweep.scores]));
  return make("section", { "aria-label": "Sweep" },
    make("h4", {}, `Score of the last token against x${wide ? " (log scale)" : ""}`), drawn.node);
}

function unpack(view) {
  const side = (s) => ({ ...s, scores: bytes(s.scores, Float32Array), ranks: bytes(s.ranks, Uint16Array) });
  const only = (part) => part && { ...part, scores: bytes(part.scores, Float32Array) };
  return { ...view, sides: view.sides.map(side), difference: only(view.difference), sweep: only(view.sweep) };
}

// --- the lab ---------------------------------------------------------------------------------------------------

function render({ model, el }) {
  const choices = model.get("choices");
  const waiting = {}; // edits that have not gone out yet
  let timer = null;
  let silence = null;

  function send() {
    clearTimeout(timer);
    if (!Object.keys(waiting).length) return;
    for (const [name, value] of Object.entries(waiting)) {
      model.set(name, value);
      delete waiting[name];
    }
    model.set("serial", model.get("serial") + 1);
    model.save_changes();
    tellState();
  }
  function edit(changes, delay = 0) {
    Object.assign(waiting, changes);
    clearTimeout(timer);
    if (delay) timer = setTimeout(send, delay);
    else send();
    tellState();
  }
  const now = (name) => (name in waiting ? waiting[name] : model.get(name));

  // inputs
  const modes = make("div", { class: "row", role: "group", "aria-label": "Mode" }, ...Object.entries(MODES).map(([mode, title]) =>
    make("button", { type: "button", "data-mode": mode, onclick: () => { edit({ mode }); drawInputs(); } }, title)));
  const chat = make("input", { type: "checkbox", onchange: () => switchChat(chat.checked) });
  const presets = make("select", { "aria-label": "Preset", onchange: () => usePreset(presets.value) },
    make("option", { value: "" }, "preset…"), ...Object.keys(choices.presets).map((name) => make("option", { value: name }, name)));
  const inputs = make("div", { class: "inputs" });

  const area = (label, value, oninput) => {
    const node = make("textarea", { "aria-label": label, rows: 3, spellcheck: false, dir: "auto" });
    node.value = value;
    node.addEventListener("input", () => oninput(node.value));
    return node;
  };
  function switchChat(on) {
    const first = (text, turns) => (turns.length > 1 ? turns : [{ role: "user", content: text }]);
    const spoken = (turns, text) => turns.find((turn) => turn.role === "user")?.content ?? text;
    edit(on
      ? { chat: true, turns: first(now("text"), now("turns")), other_turns: first(now("other"), now("other_turns")) }
      : { chat: false, text: spoken(now("turns"), now("text")), other: spoken(now("other_turns"), now("other")) });
    drawInputs();
  }
  function usePreset(name) {
    presets.value = "";
    if (!name) return;
    const text = choices.presets[name];
    edit(now("chat") ? { turns: [{ role: "user", content: text }] } : { text });
    drawInputs();
  }
  function turnEditor(trait, label) {
    const change = (changed, delay) => edit({ [trait]: changed }, delay);
    const box = make("div", { class: "turns" });
    now(trait).forEach((turn, i) => {
      const role = make("select", { "aria-label": `${label}, turn ${i + 1}, speaker`, onchange: () =>
        change(now(trait).map((t, j) => (i === j ? { ...t, role: role.value } : t))) },
        ...ROLES.map((name) => make("option", { value: name }, name)));
      role.value = turn.role;
      box.append(make("div", { class: "turn" }, role,
        area(`${label}, turn ${i + 1}`, turn.content, (content) =>
          change(now(trait).map((t, j) => (i === j ? { ...t, content } : t)), DELAY)),
        make("button", { type: "button", "aria-label": `Remove turn ${i + 1} of ${label}`, disabled: now(trait).length < 2,
          onclick: () => { change(now(trait).filter((_, j) => i !== j)); drawInputs(); } }, "×")));
    });
    box.append(make("button", { type: "button", onclick: () => {
      const turns = now(trait);
      const role = turns[turns.length - 1]?.role === "user" ? "assistant" : "user";
      change([...turns, { role, content: "" }]);
      drawInputs();
    } }, "Add a turn"));
    return box;
  }
  function promptEditor(trait, turns, label) {
    const editor = now("chat") ? turnEditor(turns, label) : area(label, now(trait), (value) => edit({ [trait]: value }, DELAY));
    return make("div", {}, make("h5", {}, label), editor);
  }
  function sweepEditor() {
    const { template, x } = now("sweep");
    const text = area("Template with one slot {x}", template, () => {});
    const values = make("input", { type: "text", "aria-label": "Values of x", value: x });
    const run = () => edit({ sweep: { template: text.value, x: values.value } });
    values.addEventListener("keydown", (event) => event.key === "Enter" && run());
    return make("div", {}, make("h5", {}, "Template: write {x} where the number goes"), text,
      make("div", { class: "row" }, make("label", {}, "x: ", values), make("button", { type: "button", class: "main", onclick: run }, "Run the sweep")));
  }
  function drawInputs() {
    const mode = now("mode");
    modes.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.mode === mode)));
    chat.checked = now("chat");
    presets.disabled = mode === "sweep";
    inputs.classList.toggle("columns", mode === "compare");
    inputs.replaceChildren(...(mode === "sweep" ? [sweepEditor()]
      : mode === "one" ? [promptEditor("text", "turns", "Prompt")]
      : [promptEditor("text", "turns", "Prompt A"), promptEditor("other", "other_turns", "Prompt B")]));
  }

  // emotions, layer, metric, unit
  const chips = make("div", { class: "row", role: "group", "aria-label": "Chosen emotions" });
  const add = (name) => {
    edit({ emotions: [...new Set([...now("emotions"), name])], shown: name });
    drawChips();
  };
  const search = emotionSearch(choices.emotions, add, (message) => showError(message));
  const top = make("button", { type: "button", onclick: () => {
    const side = model.get("view").sides?.[0];
    if (side?.top.length) edit({ emotions: side.top.slice(0, 5).map(([name]) => name) });
    drawChips();
  } }, "Top for this text");
  function drawChips() {
    const chosen = now("emotions");
    chips.replaceChildren(...chosen.map((name, e) => {
      const pick = make("button", { type: "button", class: "pick", "aria-pressed": String(name === now("shown")), title: "show on the token strip",
        onclick: () => { edit({ shown: name }); drawChips(); draw(); } }, name);
      pick.style.borderBottomColor = LINES[e % LINES.length];
      return make("span", { class: "chip" }, pick, make("button", { type: "button", "aria-label": `Remove ${name}`, disabled: chosen.length < 2,
        onclick: () => { edit({ emotions: chosen.filter((other) => other !== name) }); drawChips(); } }, "×"));
    }));
    top.disabled = now("mode") === "sweep";
  }
  const [lowest, highest] = choices.layers;
  const slider = make("input", { type: "range", min: String(lowest), max: String(highest), "aria-label": "Layer" });
  const layerText = make("output", {});
  slider.addEventListener("input", () => { edit({ layer: Number(slider.value) }, 30); drawControls(); });
  const picker = (trait, label, entries) => make("select", { "aria-label": label, "data-trait": trait,
    onchange: ({ target }) => edit({ [trait]: target.value }) }, ...entries.map(([value, title]) => make("option", { value }, title)));
  const unit = picker("unit", "Unit", Object.entries(choices.units));
  const metric = picker("metric", "Metric", choices.metrics.map((name) => [name, `${name}s`]));
  function drawControls() {
    slider.value = String(now("layer"));
    layerText.textContent = `${now("layer")}${now("layer") === choices.chosen ? " (chosen by rule)" : ""}`;
    unit.value = now("unit");
    metric.value = now("metric");
  }

  // what the lab says
  const state = make("span", { role: "status", "aria-live": "polite", class: "state" });
  const error = make("div", { role: "alert", class: "error" });
  const detail = make("div", { class: "detail", "aria-live": "polite" });
  const figures = make("div", { class: "figures" });
  const code = make("textarea", { "aria-label": "Code", readOnly: true, rows: 9, class: "code", hidden: true });
  function showError(message) {
    error.textContent = message;
    error.hidden = !message;
  }
  function tellState() {
    const busy = Object.keys(waiting).length > 0 || model.get("serial") !== model.get("done");
    const progress = model.get("progress");
    state.textContent = busy ? `computing… ${progress}` : "";
    root.setAttribute("aria-busy", String(busy));
    clearTimeout(silence);
    if (busy) silence = setTimeout(() => { state.textContent = "no answer yet: is the kernel running? If it was restarted, run the cell again"; }, SILENCE);
  }
  function draw() {
    if (!model.get("view").sides) return;
    const view = unpack(model.get("view"));
    const shown = Math.max(view.emotions.indexOf(now("shown")), 0);
    const range = extent(view.sides.map((side) => side.scores));
    const scrolled = [...figures.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    const sides = make("div", { class: view.sides.length > 1 ? "columns" : "" }, ...view.sides.map((side) => drawSide(side, view, shown, range, detail)));
    const end = Number(view.scale.toPrecision(3));
    figures.replaceChildren(make("div", { class: "row" }, make("span", { class: "caption" }, view.caption),
      make("span", { class: "scale" }, make("span", {}, String(-end)), make("span", { class: "ramp" }), make("span", {}, `+${end}`)), key(view.emotions)),
      ...(view.difference ? [drawDifference(view.difference, view, shown)] : []),
      ...(view.sweep ? [drawSweep(view.sweep, view)] : [sides]));
    figures.querySelectorAll(".scroll").forEach((box, i) => { box.scrollLeft = scrolled[i] ?? 0; });
    detail.textContent = "";
  }
  const freeze = make("button", { type: "button", title: "leave a static copy below, which stays in the saved notebook",
    onclick: () => { send(); model.send({ do: "freeze" }); } }, "Freeze");
  const copy = make("button", { type: "button", onclick: async () => {
    code.hidden = false;
    code.value = model.get("code");
    code.select();
    try { await navigator.clipboard.writeText(code.value); } catch { /* the text is selected: copy it by hand */ }
  } }, "Copy as code");

  const root = make("div", { class: "emolab-lab", role: "group", "aria-label": "Prompt lab" },
    make("div", { class: "row" }, modes, make("label", {}, chat, " chat"), presets),
    inputs,
    make("div", { class: "row" }, chips, search, top),
    make("div", { class: "row" }, make("label", {}, "layer ", slider, " ", layerText), unit, metric, state),
    error, figures, detail,
    make("div", { class: "row" }, freeze, copy), code);
  el.append(root);

  // answers of the kernel, and changes made in Python
  const on = {
    "change:view": draw,
    "change:shown": () => { drawChips(); draw(); },
    "change:error": () => showError(model.get("error")),
    "change:emotions": drawChips,
    "change:layer": drawControls,
    "change:unit": drawControls,
    "change:metric": drawControls,
    "change:done": tellState,
    "change:serial": tellState,
    "change:progress": tellState,
    "change:code": () => { code.value = model.get("code"); },
  };
  const typing = () => root.contains(document.activeElement) && inputs.contains(document.activeElement);
  for (const name of ["mode", "chat", "text", "other", "turns", "other_turns", "sweep"]) {
    on[`change:${name}`] = () => { if (!typing()) { drawInputs(); drawChips(); } };
  }
  for (const [name, react] of Object.entries(on)) model.on(name, react);
  drawInputs();
  drawChips();
  drawControls();
  showError(model.get("error"));
  tellState();
  draw();
  return () => {
    clearTimeout(timer);
    clearTimeout(silence);
    for (const [name, react] of Object.entries(on)) model.off(name, react);
  };
}

export default { render };
