//! Provisioning and containers, as far as they can be checked without a Grafana and a container engine.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{path, read};
use crate::harness::{Daemon, Http, Lab, ended};

fn yaml(name: &str) -> Value {
    serde_yaml::from_str(&read(name)).unwrap_or_else(|error| panic!("grafana/{name}: {error}"))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// The mounts of a container: its paths and ours.
fn mounts(service: &str) -> BTreeMap<String, String> {
    let compose = yaml("docker-compose.yaml");
    let mount = |text: &str| {
        let (ours, theirs) = text.strip_suffix(":ro").unwrap().split_once(':').unwrap();
        (theirs.to_owned(), ours.to_owned())
    };
    texts(&compose["services"][service]["volumes"]).into_iter().map(mount).collect()
}

#[test]
fn the_containers_find_each_other_and_their_files() {
    let compose = yaml("docker-compose.yaml");
    for (name, service) in compose["services"].as_object().unwrap() {
        for (theirs, ours) in mounts(name) {
            assert!(path(&ours).exists(), "{name}: {ours} for {theirs}");
        }
        let ports = service.get("ports").map(texts).unwrap_or_default();
        assert!(
            ports.iter().all(|port| port.starts_with("127.0.0.1:")),
            "{name} is for this machine: {ports:?}"
        );
        let pinned =
            service["image"].as_str().is_none_or(|image| image.split_once(':').unwrap().1.contains('.'));
        assert!(pinned, "{name}: a version");
    }
    let build = &compose["services"]["wxtokend"]["build"];
    assert!(path(build["context"].as_str().unwrap()).join(build["dockerfile"].as_str().unwrap()).is_file());

    // Prometheus must find the daemon, and its rules in the folder of its configuration.
    let metrics = yaml("first-look.yaml")["metrics"]["listen"].as_str().unwrap().to_owned();
    let (_, port) = metrics.rsplit_once(':').unwrap();
    let job = &yaml("prometheus.yaml")["scrape_configs"][0];
    assert_eq!(job["job_name"], "wxtokend");
    assert_eq!(texts(&job["static_configs"][0]["targets"]), [format!("wxtokend:{port}")]);
    assert_eq!(texts(&yaml("prometheus.yaml")["rule_files"]), ["rules/*.rules.yaml"]);
    assert_eq!(mounts("prometheus")["/etc/prometheus/rules"], "./rules");
    assert_eq!(mounts("prometheus")["/etc/prometheus/prometheus.yml"], "./prometheus.yaml");

    // Grafana must find Prometheus, its scrape interval, and the dashboards.
    let source = &yaml("provisioning/datasources/prometheus.yaml")["datasources"][0];
    assert_eq!((&source["type"], &source["url"]), (&"prometheus".into(), &"http://prometheus:9090".into()));
    assert_eq!(source["jsonData"]["timeInterval"], yaml("prometheus.yaml")["global"]["scrape_interval"]);
    let folder = yaml("provisioning/dashboards/wxtokend.yaml")["providers"][0]["options"]["path"].clone();
    let grafana = mounts("grafana");
    assert_eq!(grafana[folder.as_str().unwrap()], "./dashboards");
    assert_eq!(grafana["/etc/grafana/provisioning"], "./provisioning");
    let home = &compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    assert_eq!(*home, format!("{}/fleet.json", folder.as_str().unwrap()));
}

#[tokio::test]
async fn the_first_look_starts_as_docker_would_start_it_and_serves_its_metrics_apart() {
    let lab = Lab::new(60_000, 10_000).await;
    let file = lab.path("accounts.yaml").display().to_string();
    let text = read("first-look.yaml")
        .replace("0.0.0.0:9187", "127.0.0.1:0")
        .replace("127.0.0.1:8787", "127.0.0.1:0");
    std::fs::write(&file, text).unwrap();
    let in_container = "/etc/wxtokend/accounts.yaml";
    assert_eq!(mounts("wxtokend")[in_container], "./first-look.yaml");
    let command = yaml("docker-compose.yaml")["services"]["wxtokend"]["command"].clone();
    let arguments: Vec<_> =
        texts(&command).into_iter().map(|text| text.replace(in_container, &file)).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(["--log-format", "json"]).collect();
    let daemon = Daemon::start(lab.program(&arguments)).await;
    let started = daemon.event("started", 1).await;
    let metrics = Http::to(started["metrics"].as_str().unwrap().parse().unwrap());
    assert!(metrics.get("/metrics").await.body.contains("name=\"城市图书馆\""));
    assert_eq!(metrics.get("/v1/accounts").await.status, 404);
    // The file as it is, except for the addresses.
    let shipped = path("first-look.yaml").display().to_string();
    let checked = ended(lab.program(&["check", "--config", &shipped])).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
}
