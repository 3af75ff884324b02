/** Puts the few nodes that render a search's winner once in the place of the search node. */

import { isJittered, isSafe, kindOf, stepSeed } from "../state/recipe.js";
import { feed, isOutput, linksFrom, moveLinks, originsOf, prune, setWidget, sourceOf, titleOf } from "../comfyui/graph_links.js";

export const SEARCH_TYPES = ["NSSearchSampler", "NSSearchSamplerAdvanced"];
const OUTPUTS = ["images", "latents", "noise", "sigmas", "seed", "score", "recipe", "report", "plot"];
const NEXT_LAST_DROPPED = ["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"]; // KSampler leaves out their last level but one
const GAP = 40; // px between new nodes
const ROW = 220; // px of a row of them

/**
 * Replace a search node.
 * @param {object} node The search node.
 * @param {object} summary What it found: `recipe`, and `sigmas` where they are known.
 * @param {string|undefined} samplerName Of its sampler; undefined if that is not known before the workflow runs.
 * @returns {{lost: string[], removed: string[]}} Links without a counterpart, and nodes that are no longer needed.
 */
export function reduce(node, summary, samplerName) {
  const { graph } = node;
  const maker = new Maker(node, summary, samplerName);
  const sources = maker.make();
  const origins = originsOf(node);
  const orphans = new Set();
  const lost = [];
  OUTPUTS.forEach((name, index) => {
    if (sources[name] && linksFrom(node, index).length) moveLinks(node, index, sources[name]());
    for (const link of linksFrom(node, index)) {
      const target = graph.getNodeById(link.target_id);
      if (target?.type === "NSSaveSearch") continue; // becomes a Save Image
      lost.push(`${name} → ${target ? titleOf(target) : "output of the subgraph"}`);
      if (target) orphans.add(target);
    }
  });
  const savers = saversOf(node);
  graph.remove(node);
  savers.forEach((saver) => maker.saveInstead(saver));
  const removed = [...prune(graph, origins), ...removeViewers(graph, orphans)];
  return { lost, removed };
}

function saversOf(node) {
  const targets = linksFrom(node, OUTPUTS.indexOf("report")).map((link) => node.graph.getNodeById(link.target_id));
  return targets.filter((target) => target?.type === "NSSaveSearch");
}

/** Remove nodes that only showed what the search said. */
function removeViewers(graph, nodes) {
  const idle = [...nodes].filter((node) => isOutput(node) && !originsOf(node).length && !node.outputs?.some((_, i) => linksFrom(node, i).length));
  idle.forEach((node) => graph.remove(node));
  return idle.map(titleOf);
}

class Maker {
  constructor(node, { recipe, sigmas }, samplerName) {
    this.node = node;
    this.graph = node.graph;
    this.recipe = recipe;
    this.levels = sigmas;
    this.samplerName = samplerName;
    this.advanced = node.type === "NSSearchSamplerAdvanced";
    // In a guider the positive conditioning is out of reach: there the jitter is the business of Render Candidate.
    this.kind = this.advanced && isJittered(recipe) ? "render" : kindOf(recipe);
    this.made = [];
  }

  /** Make the nodes, all or none; returns what gives each of the search's outputs, as functions. */
  make() {
    try {
      return this.#all();
    } catch (error) {
      this.made.forEach((node) => this.graph.remove(node));
      throw error;
    }
  }

  #all() {
    if (this.kind === "render") return this.#render();
    if (this.kind === "stock" && !this.advanced) return this.#ksampler();
    return this.#custom();
  }

  /** Put a Save Image in the place of a Save Search, whose report is gone. */
  saveInstead(saver) {
    const save = this.#add("SaveImage", ["images", "filename_prefix"], saver);
    save.pos = [...saver.pos];
    this.graph.remove(saver);
  }

  #ksampler() {
    const names = ["model", "steps", "cfg", "sampler_name", "scheduler", "negative", "latent_image", "denoise"];
    const sampler = this.#add("KSampler", names);
    this.#setSeed(sampler, "seed");
    feed(this.#positive(), sampler, "positive");
    const latents = { node: sampler, index: 0 };
    const noise = once(() => ({ node: this.#setSeed(this.#add("RandomNoise"), "noise_seed"), index: 0 }));
    const sigmas = once(() => this.#sigmas());
    return { ...this.#decoded(latents), ...this.#seed(), noise, sigmas };
  }

  #custom() {
    const noise = this.kind === "stock" ? this.#setSeed(this.#add("RandomNoise"), "noise_seed") : this.#withRecipe("NSNoiseFromRecipe");
    const from = { node: noise, index: 0 };
    const run = this.#parts("SamplerCustomAdvanced", from, this.#positive());
    return { ...this.#decoded({ node: run.node, index: 0 }), ...this.#seed(), noise: () => from, sigmas: given(run.sigmas) };
  }

  #render() {
    const positive = this.advanced ? null : sourceOf(this.node, "positive");
    const noise = this.advanced ? sourceOf(this.node, "noise") : { node: this.#add("RandomNoise"), index: 0 };
    const { node } = this.#parts("NSRenderCandidate", noise, positive);
    feed(sourceOf(this.node, "vae"), node, "vae");
    setWidget(node, "recipe", JSON.stringify(this.recipe));
    return { images: () => ({ node, index: 0 }), latents: () => ({ node, index: 1 }), ...this.#seed() };
  }

  /** A node that takes noise, guider, sampler, sigmas and latent_image, with all of them. */
  #parts(type, noise, positive) {
    const guider = this.advanced ? sourceOf(this.node, "guider") : this.#guider(positive);
    const sampler = this.advanced ? sourceOf(this.node, "sampler") : { node: this.#add("KSamplerSelect", ["sampler_name"]), index: 0 };
    const sigmas = this.advanced ? sourceOf(this.node, "sigmas") : this.#sigmas();
    const node = this.#add(type, ["latent_image"]);
    feed(noise, node, "noise");
    feed(guider, node, "guider");
    feed(sampler, node, "sampler");
    feed(sigmas, node, "sigmas");
    return { node, sigmas };
  }

  #guider(positive) {
    const guider = this.#add("CFGGuider", ["model", "negative", "cfg"]);
    feed(positive, guider, "positive");
    return { node: guider, index: 0 };
  }

  #positive() {
    const source = this.advanced ? null : sourceOf(this.node, "positive");
    if (!source || !isJittered(this.recipe)) return source;
    const jitter = this.#withRecipe("NSJitterConditioning");
    feed(source, jitter, "conditioning");
    return { node: jitter, index: 0 };
  }

  #sigmas() {
    if (this.samplerName && !NEXT_LAST_DROPPED.includes(this.samplerName)) {
      return { node: this.#add("BasicScheduler", ["model", "scheduler", "steps", "denoise"]), index: 0 };
    }
    if (!this.levels || !LiteGraph.registered_node_types.ManualSigmas) {
      throw new Error("the noise levels of this sampler need the node ManualSigmas of newer ComfyUIs, and a new run of the search");
    }
    const sigmas = this.#add("ManualSigmas");
    setWidget(sigmas, "sigmas", this.levels.map((level) => level.toFixed(12)).join(", ")); // it reads no exponents
    return { node: sigmas, index: 0 };
  }

  #decoded(latents) {
    const decode = this.#add("VAEDecode", ["vae"]);
    feed(latents, decode, "samples");
    return { images: () => ({ node: decode, index: 0 }), latents: () => latents };
  }

  #seed() {
    const seed = stepSeed(this.recipe);
    if (!isSafe(seed)) return {};
    return { seed: once(() => ({ node: this.#fix(this.#add("PrimitiveInt"), "value", Number(seed)), index: 0 })) };
  }

  #withRecipe(type) {
    const node = this.#add(type);
    setWidget(node, "recipe", JSON.stringify(this.recipe));
    return node;
  }

  #setSeed(node, name) {
    return this.#fix(node, name, Number([this.recipe].flat()[0].seed));
  }

  /** Set a number that must not change at the next run. */
  #fix(node, name, value) {
    setWidget(node, name, value);
    const control = node.widgets.find((widget) => widget.name === "control_after_generate");
    if (control) control.value = "fixed";
    return node;
  }

  /** Add a node with inputs of the same name as another's (the search node's). */
  #add(type, names = [], like = this.node) {
    const node = LiteGraph.createNode(type);
    if (!node) throw new Error(`this ComfyUI has no node ${type}`);
    const [x, y] = this.node.pos;
    const { length } = this.made;
    node.pos = [x + (length % 2) * (node.size[0] + GAP), y + Math.floor(length / 2) * ROW];
    this.made.push(node);
    this.graph.add(node);
    for (const name of names) feed(sourceOf(like, name), node, name);
    return node;
  }
}

function once(make) {
  let made;
  return () => (made ??= make());
}

function given(source) {
  return source?.node && (() => source);
}
