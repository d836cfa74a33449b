"use strict";
// A filter is the address's fragment, such as #task=task-3&kind=alive: links set it, and so do the lists.
const facts = JSON.parse(document.getElementById("facts").textContent);
const keys = ["kind", "task", "file", "operator"];
const panel = document.getElementById("filter");
const choices = [...panel.querySelectorAll("select")];
const listed = [...document.querySelectorAll("[data-of]")].map((element) => ({ element, of: element.dataset.of.split(" ").map(Number), number: 1 }));
const others = facts.rest.map((each) => ({ of: each.slice(0, 4), number: each[4] }));

const matches = (of, asked) =>
  keys.every((key, at) => {
    const value = facts[key][of[at]];
    return !asked[key] || value === asked[key] || (key === "task" && value.split(", ").includes(asked[key]));
  });

const words = (asked) => {
  const number = {};
  for (const each of [...listed, ...others]) {
    if (matches(each.of, asked)) number[facts.kind[each.of[0]]] = (number[facts.kind[each.of[0]]] || 0) + each.number;
  }
  const of = (kind) => number[kind] || 0;
  const all = Object.values(number).reduce((one, other) => one + other, 0);
  const wrong = of("found") + of("alive") + of("unproven");
  const score = wrong ? `, score ${((100 * of("found")) / wrong).toFixed(1)}%` : "";
  const parts = facts.kind.filter(of).map((kind) => `${of(kind).toLocaleString("en")} ${kind}`);
  return `${all.toLocaleString("en")} mutants${all ? `: ${parts.join(", ")}` : ""}${score}`;
};

const show = (asked) => {
  for (const choice of choices) choice.value = asked[choice.name] || "";
  for (const { element, of } of listed) element.hidden = !matches(of, asked);
  for (const group of document.querySelectorAll("[data-group]")) {
    const number = group.querySelectorAll("[data-of]:not([hidden])").length;
    group.querySelector(".shown").textContent = number;
    group.hidden = number === 0;
    if (keys.some((key) => asked[key])) group.open = asked.kind === "found";
  }
  document.getElementById("count").textContent = words(asked);
};

const read = () => {
  const fragment = location.hash.slice(1);
  if (fragment.includes("=")) {
    show(Object.fromEntries(new URLSearchParams(fragment)));
    panel.scrollIntoView();
  } else if (fragment) {
    const target = document.getElementById(decodeURIComponent(fragment));
    if (target && target.hidden) show({});
    if (target) target.scrollIntoView();
  } else {
    show({});
  }
};

panel.hidden = false;
panel.addEventListener("change", () => {
  const asked = choices.filter((choice) => choice.value).map((choice) => [choice.name, choice.value]);
  history.replaceState(null, "", `#${new URLSearchParams(asked.length ? asked : [["all", ""]])}`);
  show(Object.fromEntries(asked));
});
window.addEventListener("hashchange", read);
show({});
read();
