// How a class is chosen: one key each, or a typed part of the name where there are more classes than keys.
// Names of classes come from outside: they are text, never markup.

const KEYS = [..."1234567890abcdefghijklmnopqrstvwxyz"]; // without u, which is undo
const SHOWN = 30; // matches that are listed

const find = (id) => document.getElementById(id);

/** The choice among classes; `choose` takes the number of a class. */
export function createChoice(classes, choose) {
  return classes.length <= KEYS.length ? byKey(classes, choose) : bySearch(classes, choose);
}

function labelOf(name, key) {
  const text = document.createElement("bdi");
  text.textContent = name.trim() ? name : `(${JSON.stringify(name)})`;
  if (!key) return [text];
  const cap = document.createElement("kbd");
  cap.textContent = key.toUpperCase();
  return [cap, text];
}

/** A key for each class: a name that is a key has itself, the others have what is left, in order. */
function keysOf(classes) {
  const names = classes.map((name) => name.trim().toLowerCase());
  const own = names.map((name, number) => (KEYS.includes(name) && names.indexOf(name) === number ? name : null));
  const free = KEYS.filter((key) => !own.includes(key));
  return own.map((key) => key ?? free.shift());
}

function byKey(classes, choose) {
  const keys = keysOf(classes);
  const buttons = classes.map((name, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "class";
    button.setAttribute("aria-keyshortcuts", keys[number]);
    button.append(...labelOf(name, keys[number]));
    button.addEventListener("click", () => choose(number));
    return button;
  });
  find("keys").append(...buttons);
  return {
    typing: false,
    reset() {},
    key(event) {
      const number = keys.indexOf(event.key.toLowerCase());
      if (number < 0) return false;
      choose(number);
      return true;
    },
  };
}

const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

function bySearch(classes, choose) {
  const query = find("query"), list = find("matches"), folded = classes.map(plain);
  const digits = classes.some((name) => /\d/.test(name)); // then digits are typed, otherwise they choose
  let matches = [], selected = 0, recent = [];
  find("search").hidden = false;
  query.addEventListener("input", () => show(0));
  show(0);

  function show(place) {
    const wanted = plain(query.value.trim());
    const all = wanted ? ranked(wanted) : [...recent, ...classes.keys()].filter((one, at, every) => every.indexOf(one) === at);
    matches = all.slice(0, SHOWN);
    list.replaceChildren(...matches.map(option));
    const rest = all.length - matches.length;
    find("more").textContent = all.length ? (rest ? `and ${rest.toLocaleString("en")} more: type a part of the name` : "") : "No class has this name.";
    select(place);
  }

  function ranked(wanted) {
    const rank = (text) => (text.startsWith(wanted) ? 0 : text.includes(` ${wanted}`) ? 1 : text.includes(wanted) ? 2 : 3);
    const ranks = folded.map(rank);
    return [...classes.keys()].filter((one) => ranks[one] < 3).sort((a, b) => ranks[a] - ranks[b] || a - b);
  }

  function option(number, place) {
    const made = document.createElement("div");
    made.className = "class";
    made.id = `match-${place}`;
    made.setAttribute("role", "option");
    made.append(...labelOf(classes[number], digits || place > 9 ? "" : KEYS[place]));
    made.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
    made.addEventListener("click", () => take(place));
    return made;
  }

  function select(place) {
    selected = Math.max(0, Math.min(place, matches.length - 1));
    [...list.children].forEach((one, at) => one.setAttribute("aria-selected", at === selected));
    if (!matches.length) return query.removeAttribute("aria-activedescendant");
    query.setAttribute("aria-activedescendant", `match-${selected}`);
    list.children[selected].scrollIntoView({ block: "nearest" });
  }

  function take(place) {
    const number = matches[place];
    if (number === undefined) return;
    recent = [number, ...recent.filter((one) => one !== number)].slice(0, 10);
    choose(number);
  }

  return {
    get typing() {
      return query.value !== "";
    },
    reset() {
      query.value = "";
      show(0);
      if (matchMedia("(hover: hover)").matches) query.focus(); // on a phone its keyboard would hide the image
    },
    key(event) {
      if (event.key === "Enter") take(selected);
      else if (event.key === "ArrowDown") select(selected + 1);
      else if (event.key === "ArrowUp") select(selected - 1);
      else if (event.key === "Escape") this.reset();
      else if (!digits && /^\d$/.test(event.key)) take(KEYS.indexOf(event.key));
      else return false;
      return true;
    },
  };
}
