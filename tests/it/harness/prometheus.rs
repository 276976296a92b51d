//! Debian's Prometheus, on a port and in a folder of its own.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::Value;
use tokio::process::Child;

use super::log::Log;
use super::{Http, Lab, Port, tool, until};

/// A running Prometheus, killed when it is dropped.
pub(crate) struct Prometheus {
    http: Http,
    _port: Port,
    _child: Child,
}

/// The result of a query.
pub(crate) enum QueryResult {
    /// The expression cannot be evaluated.
    Refused(String),
    /// The series of the result, without those that have no number.
    Series(Vec<Value>),
}

impl Prometheus {
    /// Starts a Prometheus with `config` and waits until it is ready.
    pub(crate) async fn start(lab: &Lab, config: &Path) -> Self {
        let port = Port::reserve();
        let mut command = tool("prometheus", "prometheus").await;
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", lab.path("tsdb").display()));
        command.arg(format!("--web.listen-address={}", port.address)).arg("--log.level=warn");
        let mut child = lab.prepared(command).spawn().unwrap();
        let log = Log::of(child.stderr.take().unwrap());
        let http = Http::to(port.address);
        until("prometheus is ready", async || {
            assert!(child.try_wait().unwrap().is_none(), "prometheus ended:\n{}", log.text());
            http.try_get("/-/ready").await.is_some_and(|answer| answer.status == 200)
        })
        .await;
        Self { http, _port: port, _child: child }
    }

    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = Url::parse_with_params(&format!("http://any{path}"), parameters).unwrap();
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        Http::try_send(self.http.request(Method::GET, &path)).await.expect("an answer from prometheus").json()
    }

    /// Evaluates an expression now.
    pub(crate) async fn now(&self, expr: &str) -> QueryResult {
        Self::label(&self.ask("/api/v1/query", &[("query", expr)]).await)
    }

    /// Evaluates an expression for each second of the last `span`.
    pub(crate) async fn range(&self, expr: &str, now: SystemSeconds, span: Duration) -> QueryResult {
        let (start, end) = ((now.0 - span.as_secs_f64()).to_string(), now.0.to_string());
        let parameters = [("query", expr), ("start", &start), ("end", &end), ("step", "1")];
        Self::label(&self.ask("/api/v1/query_range", &parameters).await)
    }

    /// Prometheus' own time.
    pub(crate) async fn clock(&self) -> SystemSeconds {
        let time = self.ask("/api/v1/query", &[("query", "time()")]).await;
        SystemSeconds(time["data"]["result"][0].as_f64().unwrap())
    }

    /// The values of a label in the series that `selector` matches.
    pub(crate) async fn label_values(&self, label: &str, selector: &str) -> Vec<Value> {
        let values = self.ask(&format!("/api/v1/label/{label}/values"), &[("match[]", selector)]).await;
        values["data"].as_array().unwrap_or_else(|| panic!("{label} of {selector}: {values}")).clone()
    }

    /// All rules with their health.
    pub(crate) async fn rules(&self) -> Vec<Value> {
        let groups = self.ask("/api/v1/rules", &[]).await;
        let groups = groups["data"]["groups"].as_array().unwrap().clone();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    /// All alerts that are pending or firing.
    pub(crate) async fn alerts(&self) -> Vec<Value> {
        self.ask("/api/v1/alerts", &[]).await["data"]["alerts"].as_array().unwrap().clone()
    }

    fn label(answer: &Value) -> QueryResult {
        if answer["status"] != "success" {
            return QueryResult::Refused(answer["error"].to_string());
        }
        let is_number = |sample: &Value| sample[1].as_str().is_some_and(|value| value != "NaN");
        let has_data = |series: &&Value| match series["values"].as_array() {
            Some(values) => values.iter().any(is_number),
            None => is_number(&series["value"]),
        };
        QueryResult::Series(
            answer["data"]["result"].as_array().unwrap().iter().filter(has_data).cloned().collect(),
        )
    }
}

/// Unix time in Prometheus' format.
#[derive(Clone, Copy)]
pub(crate) struct SystemSeconds(f64);
