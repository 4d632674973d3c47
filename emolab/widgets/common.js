// What the front ends of the widgets share; it is put before each of them. Every text reaches the page through
// textContent.

const SILENCE = 20000; // after so long without an answer the kernel may be gone
const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#808080"];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value);
  }
  // else JupyterLab takes Enter and the arrow keys for its own: it asks the focused element itself
  if (node.tabIndex >= 0 || "tabIndex" in attributes) node.setAttribute("data-lm-suppress-shortcuts", "true");
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(2);
const bytes = (view, Kind) => new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

function colour(value, scale) {
  if (!Number.isFinite(value)) return "transparent";
  const strength = Math.min(Math.abs(value) / scale, 1) * 0.75;
  return value > 0 ? `rgba(178,24,43,${strength})` : `rgba(33,102,172,${strength})`;
}

// Tokens as coloured spans; `mark` names a further class of each. One of them is in the tab order; the arrow keys walk along.
function strip(label, tokens, roles, value, tell, scale, mark = () => "") {
  const box = make("div", { class: "strip", role: "list", "aria-label": label });
  const spans = [];
  tokens.forEach((token, i) => {
    if (roles[i] && roles[i] !== roles[i - 1]) {
      box.append(make("span", { class: "role", role: "listitem" }, roles[i]));
    }
    const span = make("span", { class: `token ${mark(i)}`.trim(), role: "listitem", tabIndex: i ? -1 : 0 });
    span.textContent = token;
    span.style.background = colour(value(i), scale);
    const said = `${token.trim() || "blank"}: ${tell(i)}`;
    span.setAttribute("aria-label", said);
    span.title = said;
    span.dataset.number = i;
    spans.push(span);
    box.append(span);
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    const here = spans.indexOf(event.target);
    if (step === undefined || here < 0) return;
    event.preventDefault();
    const next = spans[Math.max(0, Math.min(spans.length - 1, here + step))];
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  return box;
}

// A search over emotions: `add(name)` for the one that is picked or comes nearest, `fail(message)` if none does.
function emotionSearch(emotions, add, fail) {
  const options = make("datalist", { id: `emotions-${Math.random().toString(36).slice(2)}` },
    ...emotions.map((name) => make("option", { value: name })));
  const search = make("input", { type: "search", list: options.id, "aria-label": "Add an emotion", placeholder: `search ${emotions.length} emotions`, size: 20 });
  const take = (name) => {
    search.value = "";
    add(name);
  };
  search.addEventListener("input", (event) => {
    const picked = event.inputType === undefined || event.inputType === "insertReplacementText"; // from the list
    if (picked && emotions.includes(search.value)) take(search.value);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    const typed = search.value.trim().toLowerCase();
    const found = emotions.find((name) => name === typed) ?? emotions.find((name) => name.startsWith(typed))
      ?? emotions.find((name) => name.includes(typed));
    if (typed && found) take(found);
    else if (typed) fail(`no emotion here has "${typed}" in its name`);
  });
  return make("span", {}, search, options);
}
