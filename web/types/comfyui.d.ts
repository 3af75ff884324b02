/** What the page of Noise Search uses of ComfyUI's page: its `app`, its `api` and the graph (LiteGraph). Written by hand. */

declare namespace Comfy {
  /** A number, or a text such as "5": by the frontend. */
  type Id = number | string;

  interface Link {
    origin_id: Id;
    origin_slot: number;
    target_id: Id;
    target_slot: number;
  }

  interface Input {
    name: string;
  }

  type Output = object;

  interface Widget {
    name: string;
    value: any;
    serialize?: boolean;
    linkedWidgets?: Widget[];
    callback?(value: unknown): void;
  }

  interface DOMWidgetOptions {
    serialize: boolean;
    hideOnZoom?: boolean;
    getMinHeight(): number;
    getValue(): string;
    setValue(value: string): void;
  }

  interface Node {
    id: Id;
    type: string;
    comfyClass?: string;
    title: string;
    pos: [number, number];
    size: [number, number];
    properties: { noise_search?: NoiseSearch.Summary };
    graph: Graph | null; // null once the node is removed
    subgraph?: Graph; // of a subgraph node
    inputs?: Input[];
    outputs?: Output[];
    widgets?: Widget[];
    constructor: Function & { nodeData?: { output_node?: boolean } };
    connect(output: number, target: Node, input: number): unknown;
    computeSize(): [number, number];
    setSize(size: [number, number]): void;
    setDirtyCanvas?(foreground: boolean, background: boolean): void;
    addDOMWidget(name: string, type: string, element: HTMLElement, options: DOMWidgetOptions): Widget;
    onRemoved?(...args: unknown[]): unknown;
    onExecuted?(output: NodeOutput): void;
    getExtraMenuOptions?(canvas: Canvas, options: MenuItem[]): unknown;
  }

  /** An input or output of a subgraph, seen from within. */
  interface SubgraphSlot {
    connect(slot: Input | Output, node: Node): unknown;
  }

  interface SubgraphBoundary {
    id: Id;
    slots: SubgraphSlot[];
  }

  interface Graph {
    id?: string;
    nodes: Node[];
    links: Map<Id, Link>;
    inputNode?: SubgraphBoundary; // of a subgraph
    outputNode?: SubgraphBoundary;
    getNodeById(id: Id): Node | null | undefined;
    add(node: Node): void;
    remove(node: Node): void;
    beforeChange(): void;
    afterChange(): void;
  }

  interface Canvas {
    graph: Graph;
    selectedItems: Set<unknown>;
    selectNode?(node: Node, add: boolean): void;
    emitBeforeChange(): void;
    emitAfterChange(): void;
    setDirty(foreground: boolean, background: boolean): void;
  }

  type MenuItem = null | { content: string; callback(): void };

  /** An entry of the outputs of a run that this pack's nodes show. */
  interface NodeOutput {
    noise_search?: NoiseSearch.ServerState[];
    noise_search_found?: NoiseSearch.Summary[];
    noise_search_files?: SavedFile[];
  }

  interface SavedFile {
    filename: string;
    subfolder: string;
    type: string;
  }

  /** A node of a workflow in API form. */
  interface PromptNode {
    inputs: Record<string, unknown>;
  }

  type Prompt = Record<string, PromptNode>;

  /** A queued prompt: its number, its id, the workflow, and more. */
  type QueuedPrompt = [number, string, Prompt, ...unknown[]];

  type Severity = "success" | "info" | "warn" | "error";

  interface ExtensionManager {
    toast: { add(message: { severity: Severity; summary: string; detail: string; life: number }): void };
    dialog: {
      confirm?(options: { title: string; message: string }): Promise<boolean | null>;
      prompt(options: { title: string; message: string; defaultValue: string }): Promise<string | null | undefined>;
    };
  }

  interface Extension {
    name: string;
    commands?: { id: string; label: string; function(): unknown }[];
    setup?(): void;
    nodeCreated?(node: Node): void;
    afterConfigureGraph?(): void;
    onNodeOutputsUpdated?(outputs: Record<string, NodeOutput>): void;
    getNodeMenuItems?(node: Node): MenuItem[];
  }

  interface App {
    canvas: Canvas;
    graph: Graph;
    rootGraph?: Graph; // newer frontends
    extensionManager: ExtensionManager;
    collectNodeMenuItems?: Function; // newer frontends
    registerExtension(extension: Extension): void;
    queuePrompt(number: number): Promise<unknown>;
  }

  interface Executed {
    node: string;
    output?: NodeOutput;
  }

  interface Api {
    clientId?: string | null;
    initialClientId?: string | null;
    apiURL(path: string): string;
    fetchApi(path: string, options?: RequestInit): Promise<Response>;
    addEventListener(type: "noise_search.update", listener: (event: CustomEvent<NoiseSearch.Event>) => void): void;
    addEventListener(type: "executed", listener: (event: CustomEvent<Executed>) => void): void;
    addEventListener(type: "reconnected", listener: () => void): void;
  }
}

declare const LiteGraph: {
  createNode(type: string): Comfy.Node | null;
  registered_node_types: Record<string, unknown>;
};

declare module "*/scripts/app.js" {
  export const app: Comfy.App;
}

declare module "*/scripts/api.js" {
  export const api: Comfy.Api;
}
