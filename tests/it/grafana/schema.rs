//! Checks the dashboards against the types that Grafana publishes, with the TypeScript compiler.

use std::path::{Path, PathBuf};

use super::Board;
use crate::harness::{node_packages, said, tool, words};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grafana-schema")
}

#[tokio::test]
async fn the_dashboards_are_of_the_schema_that_grafana_publishes_and_of_its_current_version() {
    node_packages(&folder()).await;
    let mut boards = "import type { Board } from \"./schema\";\n".to_owned();
    for Board { name, json } in Board::all() {
        boards += &format!("export const {name}: Board = {json:#};\n");
    }
    std::fs::write(folder().join("boards.ts"), boards).unwrap();
    let mut compiler = tool("node", "nodejs").await;
    compiler.arg("node_modules/typescript/bin/tsc").args(["-p", "."]).current_dir(folder());
    let ended = said(compiler).await;
    assert!(ended.status.success(), "{}", words(&ended));

    let file = folder().join("node_modules/@grafana/schema/dist/esm/raw/dashboard/x/types.gen.mjs");
    let published = std::fs::read_to_string(file).unwrap();
    let (_, version) = published.split_once("schemaVersion: ").unwrap();
    let version: u64 = version.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    for Board { name, json } in Board::all() {
        assert_eq!(json["schemaVersion"], version, "{name}");
    }
}
