// The watched chat: messages as coloured tokens, the watched emotions in the margin, alarms as buttons. Every text
// reaches the page through textContent. What counts lives in Python (watch_chat.py).

const WIDE = 220, TALL = 84;

function render({ model, el }) {
  const choices = model.get("choices");
  const now = (name) => model.get(name);
  const ink = (name) => choices.colours[choices.emotions.indexOf(name) % choices.colours.length];
  let silence = null;

  function edit(changes) {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  }

  // the messages, each with its margin
  const messages = make("div", {});
  const alarms = make("div", { role: "group", "aria-label": "Alarms" });
  const verdict = make("div", { class: "caption" });
  const detail = make("div", { class: "detail", "aria-live": "polite" });

  function margin(means, places, thresholds) {
    const n = choices.emotions.length;
    const values = places.flatMap((place) => Array.from(means.slice(place * n, place * n + n)));
    const low = Math.min(0, ...values), high = Math.max(...thresholds, ...values) * 1.05;
    const x = (i) => 4 + (i / Math.max(places.length - 1, 1)) * (WIDE - 8);
    const y = (value) => 4 + ((high - value) / Math.max(high - low, 1e-9)) * (TALL - 8);
    const peaks = choices.emotions.map((name, k) => `${name} ${signed(Math.max(...places.map((p) => means[p * n + k])))}`);
    const picture = svg("svg", { viewBox: `0 0 ${WIDE} ${TALL}`, role: "img", "aria-label": `Running means; highest: ${peaks.join(", ")}` });
    picture.append(svg("line", { x1: 0, x2: WIDE, y1: y(0), y2: y(0), stroke: "#808080", "stroke-width": 0.6 }));
    choices.emotions.forEach((name, k) => {
      const points = places.map((place, i) => `${x(i).toFixed(1)},${y(means[place * n + k]).toFixed(1)}`).join(" ");
      picture.append(svg("polyline", { points, fill: "none", stroke: ink(name), "stroke-width": 2 }));
      const at = y(thresholds[k]);
      picture.append(svg("line", { x1: 0, x2: WIDE, y1: at, y2: at, stroke: ink(name), "stroke-dasharray": "4 3", class: "threshold" }));
    });
    return picture;
  }

  function draw() {
    const view = now("view");
    messages.replaceChildren();
    alarms.replaceChildren();
    verdict.textContent = view.verdict ?? "";
    if (!view.tokens) return;
    const means = bytes(view.means, Float32Array), n = choices.emotions.length;
    const shown = Math.max(choices.emotions.indexOf(now("shown")), 0);
    const groups = [];
    view.speakers.forEach((speaker, place) => {
      if (!speaker) return groups.push(null);
      const last = groups[groups.length - 1];
      if (last && last.speaker === speaker) last.places.push(place);
      else groups.push({ speaker, places: [place] });
    });
    for (const group of groups.filter(Boolean)) {
      const { speaker, places } = group;
      const within = (place) => view.alarms.filter((alarm) => alarm.start <= place && place < alarm.end);
      const tell = (i) => choices.emotions.map((name, k) => `${name} ${signed(means[places[i] * n + k])}`)
        .concat(within(places[i]).map((alarm) => `alarm of ${alarm.emotion}`)).join(", ");
      const heat = strip(`${speaker}, the message`, places.map((place) => view.tokens[place]), [],
        (i) => means[places[i] * n + shown], tell, choices.scale);
      heat.querySelectorAll(".token").forEach((span, i) => {
        span.dataset.place = places[i];
        const [first, second] = within(places[i]);
        if (first) span.style.borderBottom = `3px solid ${ink(first.emotion)}`;
        if (second) span.style.borderTop = `3px solid ${ink(second.emotion)}`;
      });
      messages.append(make("div", { class: "message" }, make("span", { class: "speaker" }, speaker), heat, margin(means, places, view.thresholds)));
    }
    for (const alarm of view.alarms) {
      const button = make("button", { type: "button", class: "alarm", onclick: () => find(alarm) }, alarm.said);
      button.style.borderBottomColor = ink(alarm.emotion);
      alarms.append(button);
    }
  }
  function find(alarm) {
    const tokens = [...messages.querySelectorAll(".token")];
    tokens.forEach((span) => span.classList.toggle("found", alarm.start <= span.dataset.place && span.dataset.place < alarm.end));
    tokens.find((span) => span.classList.contains("found"))?.scrollIntoView({ block: "nearest" });
    detail.textContent = `${alarm.said}: ${alarm.words}`;
  }

  // what is written next
  const text = make("textarea", { "aria-label": "Message", rows: 2, spellcheck: false, dir: "auto" });
  text.addEventListener("input", () => model.set("text", text.value));
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); event.stopPropagation(); start(); }
  });
  const most = make("input", { type: "number", min: "1", max: String(choices.most), "aria-label": "Tokens to write" });
  most.addEventListener("change", () => edit({ max_tokens: Math.round(Number(most.value)) || 0 }));
  const colours = make("select", { "aria-label": "Emotion that colours the tokens", onchange: () => { edit({ shown: colours.value }); draw(); } },
    ...choices.emotions.map((name) => make("option", { value: name }, name)));
  const key = make("span", { class: "row" }, ...choices.emotions.map((name) => {
    const span = make("span", { class: "key" }, name);
    span.style.borderBottomColor = ink(name);
    return span;
  }));
  const state = make("span", { role: "status", "aria-live": "polite", class: "state" });
  const error = make("div", { role: "alert", class: "error" });
  const send = make("button", { type: "button", class: "main", title: "Ctrl+Enter in the message", onclick: () => start() }, "Send");
  const stop = make("button", { type: "button", onclick: () => model.send({ do: "stop" }) }, "Stop");
  const clear = make("button", { type: "button", onclick: () => model.send({ do: "clear" }) }, "New chat");
  const freeze = make("button", { type: "button", title: "leave a static copy below, which stays in the saved notebook",
    onclick: () => model.send({ do: "freeze" }) }, "Freeze");

  function start() {
    if (now("running")) return;
    edit({ text: text.value, asked: now("asked") + 1 });
    clearTimeout(silence);
    silence = setTimeout(() => { state.textContent = "no answer yet: is the kernel busy, or gone? If it was restarted, run the cell again"; }, SILENCE);
  }
  function tell() {
    clearTimeout(silence);
    const busy = now("running");
    state.textContent = busy ? `${now("state")}…` : "";
    send.disabled = clear.disabled = busy;
    stop.disabled = !busy;
    error.textContent = now("error");
    error.hidden = !now("error");
    root.setAttribute("aria-busy", String(busy));
  }
  function drawControls() {
    if (text !== document.activeElement || !now("text")) text.value = now("text");
    most.value = String(now("max_tokens"));
    colours.value = now("shown");
  }

  const root = make("div", { class: "emolab-lab emolab-watch", role: "group", "aria-label": "Watched chat" },
    make("div", { class: "row" }, make("label", {}, "colour: ", colours), key), messages, alarms, detail, verdict, text,
    make("div", { class: "row" }, send, stop, clear, make("label", {}, "tokens ", most), freeze, state), error);
  el.append(root);

  const on = { "change:view": draw, "change:shown": () => { drawControls(); draw(); }, "change:text": drawControls,
    "change:max_tokens": drawControls, "change:running": tell, "change:state": tell, "change:error": tell };
  for (const [name, react] of Object.entries(on)) model.on(name, react);
  drawControls();
  tell();
  draw();
  return () => {
    clearTimeout(silence);
    for (const [name, react] of Object.entries(on)) model.off(name, react);
  };
}

export default { render };
