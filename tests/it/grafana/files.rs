//! Provisioning and the containers: what can be said of them without a Grafana and a container engine.
