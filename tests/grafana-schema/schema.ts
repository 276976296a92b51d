// What a dashboard of ours may be, in the types that Grafana publishes. The test writes boards.ts, which gives each
// dashboard the type `Board`; the compiler then finds options that do not exist, and values that they do not take.
import type {
  AnnotationQuery, Dashboard, DataQuery, FieldConfig, MatcherConfig, Panel, RowPanel, VariableModel,
} from "@grafana/schema";
import type * as BarGauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as Stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as StateTimeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as Table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as TimeSeries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** JSON has the values of enums, not their members. */
export type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;

/** A query of Prometheus, which @grafana/schema leaves to the data source. */
interface Query extends DataQuery {
  datasource: { type: "prometheus"; uid: "${datasource}" };
  editorMode: "code";
  expr: string;
  format?: "time_series" | "table";
  instant?: boolean;
  legendFormat?: string;
  range?: boolean;
}

/** The settings of a field that a panel of custom settings `C` may override. */
type Setting<C> = Property<"", Omit<Plain<FieldConfig>, "custom">> | Property<"custom.", Plain<C>>;
type Property<Prefix extends string, T> = {
  [K in keyof T & string]-?: { id: `${Prefix}${K}`; value: Exclude<T[K], undefined> };
}[keyof T & string];

export interface Override<C> {
  matcher: MatcherConfig<string>;
  properties: Setting<C>[];
}

export type PanelOf<Type extends string, Options, Custom = {}> =
  Omit<Plain<Panel>, "type" | "options" | "fieldConfig" | "targets"> & {
    type: Type;
    options: Plain<Options>;
    targets: Query[];
    fieldConfig: {
      defaults: Omit<Plain<FieldConfig>, "custom"> & { custom?: Plain<Custom> };
      overrides: Override<Custom>[];
    };
  };

export type StatPanel = PanelOf<"stat", Stat.Options>;
export type TablePanel = PanelOf<"table", Table.Options, Table.FieldConfig>;

type AnyPanel =
  | Plain<RowPanel>
  | PanelOf<"bargauge", BarGauge.Options>
  | PanelOf<"state-timeline", StateTimeline.Options, StateTimeline.FieldConfig>
  | PanelOf<"timeseries", TimeSeries.Options, TimeSeries.FieldConfig>
  | StatPanel
  | TablePanel;

/** What the Prometheus data source reads of an annotation, besides. */
type Annotation = Plain<AnnotationQuery<DataQuery>> & {
  tagKeys?: string;
  target?: { expr?: string; editorMode?: "code" };
  textFormat?: string;
  titleFormat?: string;
  useValueForTime?: boolean;
};

export type Board = Omit<Plain<Dashboard>, "annotations" | "panels" | "templating"> & {
  annotations: { list: Annotation[] };
  panels: AnyPanel[];
  // What Grafana itself writes beside `query`, to show it in its list of variables.
  templating: { list: (Plain<VariableModel> & { definition?: string })[] };
};
