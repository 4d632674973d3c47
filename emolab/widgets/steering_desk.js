// The front end of the steering desk; common.js stands before it. State and texts live in Python (steering_desk.py).

const PLACES = { all: "all tokens", prompt: "the prompt only", generated: "only what is written" };

function render({ model, el }) {
  const choices = model.get("choices");
  const now = (name) => model.get(name);
  let silence = null;

  function edit(changes) {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  }

  // the prompt
  const text = make("textarea", { "aria-label": "Prompt", rows: 3, spellcheck: false, dir: "auto" });
  text.addEventListener("input", () => model.set("text", text.value));
  text.addEventListener("change", () => edit({ text: text.value }));
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); event.stopPropagation(); start(); }
  });
  const chat = make("input", { type: "checkbox", onchange: () => edit({ chat: chat.checked }) });

  // the pushes
  const pushes = make("div", { class: "pushes", role: "group", "aria-label": "Pushed emotions" });
  const search = emotionSearch(choices.emotions, (name) => {
    if (name in now("pushes")) return;
    if (Object.keys(now("pushes")).length >= choices.most[0]) return showError(`the desk pushes at most ${choices.most[0]} emotions`);
    edit({ pushes: { ...now("pushes"), [name]: 0.3 } });
    drawPushes();
    pushes.querySelector(`[data-emotion="${CSS.escape(name)}"]`).focus();
  }, (message) => showError(message));
  function drawPushes() {
    const entries = Object.entries(now("pushes"));
    pushes.replaceChildren(...entries.map(([name, strength]) => {
      const said = make("span", { "aria-hidden": "true" }, signed(strength));
      const slider = make("input", { type: "range", min: String(-choices.strength), max: String(choices.strength), step: "0.05",
        "aria-label": `Strength of ${name}`, "aria-valuetext": signed(strength), "data-emotion": name });
      slider.value = String(strength);
      slider.addEventListener("input", () => {
        edit({ pushes: { ...now("pushes"), [name]: Number(slider.value) } });
        said.textContent = signed(Number(slider.value));
        slider.setAttribute("aria-valuetext", said.textContent);
      });
      const remove = make("button", { type: "button", "aria-label": `Remove ${name}`, disabled: entries.length < 2, onclick: () => {
        const { [name]: _, ...others } = now("pushes");
        edit({ pushes: others });
        drawPushes();
      } }, "×");
      return make("div", { class: "push" }, make("span", {}, name), slider, said, remove);
    }));
  }

  // where and how
  const number = (trait, label, low, high) => {
    const node = make("input", { type: "number", min: String(low), max: String(high), step: "1", "aria-label": label, "data-trait": trait });
    const typed = () => (node.value === "" ? NaN : Math.round(Number(node.value)));
    node.addEventListener("input", () => Number.isFinite(typed()) && edit({ [trait]: typed() }));
    node.addEventListener("change", () => { node.value = String(now(trait)); });
    return node;
  };
  const [lowest, highest] = choices.layers;
  const layer = make("input", { type: "range", min: String(lowest), max: String(highest), "aria-label": "Layer" });
  const layerText = make("span", { "aria-hidden": "true" });
  layer.addEventListener("input", () => { edit({ layer: Number(layer.value) }); drawControls(); });
  const positions = make("select", { "aria-label": "Tokens to push", onchange: () => edit({ positions: positions.value }) },
    ...choices.positions.map((name) => make("option", { value: name }, PLACES[name] ?? name)));
  const greedy = make("input", { type: "checkbox", onchange: () => { edit({ greedy: greedy.checked }); drawControls(); } });
  const seed = number("seed", "Seed", 0, 2 ** 31 - 1);
  const most = number("max_tokens", "Tokens to write", 1, choices.most[1]);
  const put = (node, value) => { if (node !== document.activeElement) node.value = String(value); }; // not while it is typed in
  function drawControls() {
    put(text, now("text"));
    chat.checked = now("chat");
    layer.value = String(now("layer"));
    layer.setAttribute("aria-valuetext", String(now("layer")));
    layerText.textContent = `${now("layer")}${now("layer") === choices.middle ? " (middle)" : ""}`;
    positions.value = now("positions");
    greedy.checked = now("greedy");
    put(seed, now("seed"));
    seed.disabled = greedy.checked;
    put(most, now("max_tokens"));
  }

  // run and stop
  const state = make("span", { role: "status", "aria-live": "polite", class: "state" });
  const error = make("div", { role: "alert", class: "error" });
  const run = make("button", { type: "button", class: "main", title: "Ctrl+Enter in the prompt", onclick: () => start() }, "Run");
  const stop = make("button", { type: "button", onclick: () => model.send({ do: "stop" }) }, "Stop");
  function start() {
    if (now("running")) return;
    edit({ text: text.value, asked: now("asked") + 1 }); // not a message: it would overtake edits that are under way
    clearTimeout(silence);
    silence = setTimeout(() => { state.textContent = "no answer yet: is the kernel busy, or gone? If it was restarted, run the cell again"; }, SILENCE);
  }
  function showError(message) {
    error.textContent = message;
    error.hidden = !message;
  }
  function tellState() {
    clearTimeout(silence);
    const busy = now("running");
    state.textContent = busy ? `${now("state")}…` : "";
    run.disabled = busy;
    stop.disabled = !busy;
    root.setAttribute("aria-busy", String(busy));
  }

  // the two texts
  const texts = make("div", { class: "columns" });
  const caption = make("div", { class: "row" });
  const detail = make("div", { class: "detail", "aria-live": "polite" });
  function drawCaption(view) {
    const end = view.scale;
    const colour = make("select", { "aria-label": "Emotion that colours the tokens", onchange: () => { edit({ shown: colour.value }); draw(); } },
      ...view.emotions.map((name) => make("option", { value: name }, name)));
    colour.value = now("shown");
    caption.replaceChildren(make("label", {}, "colour: ", colour),
      make("span", { class: "scale" }, make("span", {}, String(-end)), make("span", { class: "ramp" }), make("span", {}, `+${end}`)),
      make("span", { class: "pushed" }, "pushed token"), make("span", { class: "caption" }, view.caption));
  }
  function drawSide(side, view) {
    const finished = side.scores !== undefined;
    const scores = finished ? bytes(side.scores, Float32Array) : null;
    const [n, shown] = finished ? [view.emotions.length, Math.max(view.emotions.indexOf(now("shown")), 0)] : [0, 0];
    const value = (i) => (finished ? scores[i * n + shown] : NaN);
    const tell = (i) => [
      Number.isFinite(value(i)) ? `${view.emotions[shown]} ${signed(value(i))}` : "not scored",
      i < side.prompt ? "prompt" : "written", ...(side.pushed?.[i] ? ["pushed"] : []),
    ].join(", ");
    const mark = (i) => `${i < side.prompt ? "prompt" : ""} ${side.pushed?.[i] ? "pushed" : ""}`.trim();
    const heat = strip(`${side.title}, the text`, side.tokens, [], value, tell, view.scale ?? 1, mark);
    heat.addEventListener("focusin", ({ target }) => {
      if (target.dataset.number !== undefined) detail.textContent = `${side.title}, token ${target.dataset.number}, ${target.getAttribute("aria-label")}`;
    });
    const figures = Object.entries(side.figures ?? {}).map(([name, found]) => {
      const digits = found === null ? "-" : name === "perplexity" ? found.toFixed(1) : name.startsWith("repeated") ? `${Math.round(found * 100)}%` : `${signed(found)} sd`;
      return make("span", { role: "listitem" }, make("span", { class: "caption" }, `${name} `), make("strong", {}, digits));
    });
    return make("section", { "aria-label": side.title }, make("h4", {}, side.title), heat, make("div", { class: "row measures", role: "list", "aria-label": `${side.title}, measures` }, ...figures));
  }
  function draw() {
    const view = now("view");
    if (!view.sides) return;
    texts.replaceChildren(...view.sides.map((side) => drawSide(side, view)));
    if (view.emotions) drawCaption(view);
  }

  const freeze = make("button", { type: "button", title: "leave a static copy below, which stays in the saved notebook",
    onclick: () => model.send({ do: "freeze" }) }, "Freeze");
  const code = make("textarea", { "aria-label": "Code", readOnly: true, rows: 9, class: "code", hidden: true });
  const copy = make("button", { type: "button", onclick: async () => {
    code.hidden = false;
    code.value = now("code");
    code.select();
    try { await navigator.clipboard.writeText(code.value); } catch { /* the text is selected: copy it by hand */ }
  } }, "Copy as code");

  const root = make("div", { class: "emolab-lab emolab-desk", role: "group", "aria-label": "Steering desk" },
    text, make("div", { class: "row" }, make("label", {}, chat, " chat"), make("label", {}, greedy, " greedy"),
      make("label", {}, "seed ", seed), make("label", {}, "tokens ", most)),
    pushes, make("div", { class: "row" }, search, make("label", {}, "layer ", layer, " ", layerText), make("label", {}, "push ", positions)),
    make("div", { class: "row" }, run, stop, state), error, texts, caption, detail,
    make("div", { class: "row" }, freeze, copy), code);
  el.append(root);

  const on = {
    "change:view": draw,
    "change:shown": draw,
    "change:error": () => showError(now("error")),
    "change:running": tellState,
    "change:state": tellState,
    "change:pushes": () => { if (!pushes.contains(document.activeElement)) drawPushes(); },
  };
  for (const name of ["text", "chat", "layer", "positions", "greedy", "seed", "max_tokens"]) on[`change:${name}`] = drawControls;
  for (const [name, react] of Object.entries(on)) model.on(name, react);
  drawControls();
  drawPushes();
  showError(now("error"));
  tellState();
  draw();
  return () => {
    clearTimeout(silence);
    for (const [name, react] of Object.entries(on)) model.off(name, react);
  };
}

export default { render };
