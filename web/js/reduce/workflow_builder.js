/** Makes the nodes that render a search's winner once. */

import { connectInput, findWidget, inputSource, setWidget } from "../comfyui/graph_links.js";
import { createNode, graphOf } from "../comfyui/graph_nodes.js";
import { firstSeed, isJittered, isSafeSeed, recipeKind, stepSeed } from "../state/recipe.js";

/** @typedef {import("../comfyui/graph_links.js").Source} Source */
/** @typedef {import("../comfyui/graph_links.js").OutputSource} OutputSource */

/**
 * @typedef {object} Outputs What stands for outputs of the search node; a function makes its node when it is called first.
 * @property {() => OutputSource} images
 * @property {() => OutputSource} latents
 * @property {() => OutputSource} [noise]
 * @property {() => OutputSource} [sigmas]
 * @property {() => OutputSource} [seed]
 */

const LAST_BUT_ONE_DROPPED = ["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"]; // level that KSampler leaves out for them
const GAP = 40; // px between new nodes
const ROW = 220; // px of a row of them

/** Builds the plain workflow of one search node. */
export class WorkflowBuilder {
  /**
   * @param {Comfy.Node} node The search node.
   * @param {NoiseSearch.Summary} summary What it found.
   * @param {string|undefined} samplerName Of its sampler, where that is known.
   */
  constructor(node, { recipe, sigmas }, samplerName) {
    if (!recipe) throw new Error(`${node.title} has no recipe: run the search once, or take the recipe from a picture`);
    this.node = node;
    this.graph = graphOf(node);
    this.recipe = recipe;
    this.levels = sigmas;
    this.samplerName = samplerName;
    this.advanced = node.type === "NSSearchSamplerAdvanced";
    // In a guider the positive conditioning is out of reach: there Render Candidate applies the jitter.
    this.kind = this.advanced && isJittered(recipe) ? "render" : recipeKind(recipe);
    /** @type {Comfy.Node[]} */
    this.made = [];
  }

  /**
   * Make the nodes, all or none.
   * @returns {Outputs}
   */
  build() {
    try {
      if (this.kind === "render") return this.#render();
      return this.kind === "stock" && !this.advanced ? this.#ksampler() : this.#custom();
    } catch (error) {
      this.made.forEach((node) => this.graph.remove(node));
      throw error;
    }
  }

  /**
   * Put a Save Image in the place of a Save Search, whose report is gone.
   * @param {Comfy.Node} saver
   */
  replaceSaver(saver) {
    const save = this.#add("SaveImage", ["images", "filename_prefix"], saver);
    save.pos = [...saver.pos];
    this.graph.remove(saver);
  }

  /** @returns {Outputs} */
  #ksampler() {
    const names = ["model", "steps", "cfg", "sampler_name", "scheduler", "negative", "latent_image", "denoise"];
    const sampler = this.#add("KSampler", names);
    this.#setSeed(sampler, "seed");
    connectInput(this.#positive(), sampler, "positive");
    const noise = once(() => output(this.#setSeed(this.#add("RandomNoise"), "noise_seed")));
    return { ...this.#decoded(output(sampler)), ...this.#seed(), noise, sigmas: once(() => this.#sigmas()) };
  }

  /** @returns {Outputs} */
  #custom() {
    const isStock = this.kind === "stock";
    const noise = output(isStock ? this.#setSeed(this.#add("RandomNoise"), "noise_seed") : this.#withRecipe("NSNoiseFromRecipe"));
    const { node, sigmas } = this.#sampling("SamplerCustomAdvanced", noise, this.#positive());
    const outputs = { ...this.#decoded(output(node)), ...this.#seed(), noise: () => noise };
    return sigmas && "node" in sigmas ? { ...outputs, sigmas: () => sigmas } : outputs;
  }

  /** @returns {Outputs} */
  #render() {
    const positive = this.advanced ? null : inputSource(this.node, "positive");
    const noise = this.advanced ? inputSource(this.node, "noise") : output(this.#add("RandomNoise"));
    const { node } = this.#sampling("NSRenderCandidate", noise, positive);
    connectInput(inputSource(this.node, "vae"), node, "vae");
    setWidget(node, "recipe", JSON.stringify(this.recipe));
    return { images: () => output(node), latents: () => output(node, 1), ...this.#seed() };
  }

  /**
   * Make a node that takes noise, guider, sampler, sigmas and latent_image, with all of them.
   * @param {string} type
   * @param {Source|null} noise
   * @param {Source|null} positive
   * @returns {{node: Comfy.Node, sigmas: Source|null}}
   */
  #sampling(type, noise, positive) {
    const { advanced } = this;
    const guider = advanced ? inputSource(this.node, "guider") : this.#guider(positive);
    const sampler = advanced ? inputSource(this.node, "sampler") : output(this.#add("KSamplerSelect", ["sampler_name"]));
    const sigmas = advanced ? inputSource(this.node, "sigmas") : this.#sigmas();
    const node = this.#add(type, ["latent_image"]);
    connectInput(noise, node, "noise");
    connectInput(guider, node, "guider");
    connectInput(sampler, node, "sampler");
    connectInput(sigmas, node, "sigmas");
    return { node, sigmas };
  }

  /**
   * @param {Source|null} positive
   * @returns {OutputSource}
   */
  #guider(positive) {
    const guider = this.#add("CFGGuider", ["model", "negative", "cfg"]);
    connectInput(positive, guider, "positive");
    return output(guider);
  }

  /** @returns {Source|null} */
  #positive() {
    const source = this.advanced ? null : inputSource(this.node, "positive");
    if (!source || !isJittered(this.recipe)) return source;
    const jitter = this.#withRecipe("NSJitterConditioning");
    connectInput(source, jitter, "conditioning");
    return output(jitter);
  }

  /** @returns {OutputSource} */
  #sigmas() {
    if (this.samplerName && !LAST_BUT_ONE_DROPPED.includes(this.samplerName)) {
      return output(this.#add("BasicScheduler", ["model", "scheduler", "steps", "denoise"]));
    }
    if (!this.levels || !LiteGraph.registered_node_types.ManualSigmas) {
      const needs = "the node ManualSigmas of newer ComfyUIs, and a new run of the search";
      throw new Error(`the noise levels of this sampler need ${needs}`);
    }
    const sigmas = this.#add("ManualSigmas");
    setWidget(sigmas, "sigmas", this.levels.map((level) => level.toFixed(12)).join(", ")); // it reads no exponents
    return output(sigmas);
  }

  /**
   * @param {OutputSource} latents
   * @returns {{images: () => OutputSource, latents: () => OutputSource}}
   */
  #decoded(latents) {
    const decode = this.#add("VAEDecode", ["vae"]);
    connectInput(latents, decode, "samples");
    return { images: () => output(decode), latents: () => latents };
  }

  /** @returns {{seed?: () => OutputSource}} */
  #seed() {
    const seed = stepSeed(this.recipe);
    if (!isSafeSeed(seed)) return {};
    return { seed: once(() => output(this.#setFixed(this.#add("PrimitiveInt"), "value", Number(seed)))) };
  }

  /**
   * @param {string} type
   * @returns {Comfy.Node}
   */
  #withRecipe(type) {
    const node = this.#add(type);
    setWidget(node, "recipe", JSON.stringify(this.recipe));
    return node;
  }

  /**
   * @param {Comfy.Node} node
   * @param {string} name Of its widget.
   * @returns {Comfy.Node} The node.
   */
  #setSeed(node, name) {
    return this.#setFixed(node, name, Number(firstSeed(this.recipe)));
  }

  /**
   * Set a number that must not change at the next run.
   * @param {Comfy.Node} node
   * @param {string} name Of its widget.
   * @param {number} value
   * @returns {Comfy.Node} The node.
   */
  #setFixed(node, name, value) {
    setWidget(node, name, value);
    const control = findWidget(node, "control_after_generate");
    if (control) control.value = "fixed";
    return node;
  }

  /**
   * Add a node that takes over inputs from another one.
   * @param {string} type
   * @param {string[]} [names] Of the inputs: the same on both nodes.
   * @param {Comfy.Node} [like] The other one.
   * @returns {Comfy.Node}
   */
  #add(type, names = [], like = this.node) {
    const node = createNode(type);
    const [x, y] = this.node.pos;
    const { length } = this.made;
    node.pos = [x + (length % 2) * (node.size[0] + GAP), y + Math.floor(length / 2) * ROW];
    this.made.push(node);
    this.graph.add(node);
    for (const name of names) connectInput(inputSource(like, name), node, name);
    return node;
  }
}

/**
 * @param {Comfy.Node} node
 * @param {number} [index]
 * @returns {OutputSource}
 */
function output(node, index = 0) {
  return { node, index };
}

/**
 * @template T
 * @param {() => T} make
 * @returns {() => T} Calls `make` once, and gives what it made each time.
 */
function once(make) {
  /** @type {{value: T}|undefined} */
  let made;
  return () => (made ??= { value: make() }).value;
}
