// Mistakes that the compiler must find: were one of them taken, `Board` would prove nothing.
import type { Board, Override, Plain, StatPanel, TablePanel } from "./schema";
import type { TableFieldOptions, VizLegendOptions } from "@grafana/schema";

// @ts-expect-error a list is no value of an enum that has list
export const value: Plain<VizLegendOptions> = { calcs: [], displayMode: "lists", placement: "bottom", showLegend: true };
// @ts-expect-error nor is there such an option
export const key: Plain<VizLegendOptions> = { calcs: [], displayMod: "list", placement: "bottom", showLegend: true };
// @ts-expect-error a panel's options are those of its type
export const options: StatPanel["options"] = { showHeader: true, frameIndex: 0 };
// @ts-expect-error a legend is missing a key
export const missing: Plain<VizLegendOptions> = { calcs: [], displayMode: "list", showLegend: true };
// @ts-expect-error an override is of a setting that exists
export const setting: Override<TableFieldOptions>["properties"] = [{ id: "custom.wide", value: 3 }];
// @ts-expect-error and of a value that it takes
export const width: Override<TableFieldOptions>["properties"] = [{ id: "custom.width", value: "3" }];
// @ts-expect-error a query goes to the data source that is chosen
export const target: TablePanel["targets"] = [{ refId: "A", editorMode: "code", expr: "up", datasource: { type: "prometheus", uid: "x" } }];
// @ts-expect-error a dashboard has no such key
export const board: Board = { annotations: { list: [] }, panels: [], templating: { list: [] }, schemaVersion: 42, rows: [] };
