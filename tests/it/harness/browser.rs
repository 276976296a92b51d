//! Headless Chromium, driven by W3C WebDriver, which is JSON over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use reqwest::{Client, Method};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::log::Log;
use super::{Http, find};

const MISSING: &str = "the tests of the status page need Chromium, its driver and a Chinese font: \
                       sudo apt-get install -y chromium chromium-driver fonts-wqy-microhei";
/// Limits the number of browsers, since each takes a whole core.
static PERMITS: Semaphore = Semaphore::const_new(2);

/// The Enter key in WebDriver's encoding.
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
pub(crate) const DOWN: &str = "\u{e015}";

/// The screen of a browser.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) language: &'static str,
    pub(crate) dark: bool,
}

impl Default for Screen {
    fn default() -> Self {
        Self { width: 1280, height: 800, language: "en-US", dark: false }
    }
}

/// A browser with a profile of its own, stopped when it is dropped.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    client: Client,
    profile: TempDir,
    _turn: SemaphorePermit<'static>,
}

/// Starts a driver and returns it with its port.
async fn driver() -> (Child, u16) {
    for _ in 0..5 {
        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver =
            driver.kill_on_drop(true).spawn().unwrap_or_else(|error| panic!("{error}: {MISSING}"));
        let said = Log::of(driver.stdout.take().unwrap());
        let started = find("chromedriver has started", async || {
            let text = said.text();
            let port =
                text.split_once("started successfully on port ").and_then(|(_, rest)| rest.split_once('.'));
            match port {
                Some((port, _)) => Some(port.parse().ok()),
                // The port that it got for IPv4 may be taken for IPv6; the driver then exits.
                None => driver.try_wait().unwrap().map(|_| None),
            }
        });
        if let Some(port) = started.await {
            return (driver, port);
        }
    }
    panic!("chromedriver ended five times before it listened: {MISSING}");
}

impl Browser {
    pub(crate) async fn open(screen: Screen) -> Self {
        let turn = PERMITS.acquire().await.unwrap();
        let (driver, port) = driver().await;
        // Sets up TLS for reqwest as the rest of the harness does, though it is not needed here.
        drop(Http::to(([127, 0, 0, 1], port).into()));
        let client =
            Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(60)).build().unwrap();
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self { driver, port, session: String::new(), client, profile, _turn: turn };
        let wanted = browser.capabilities(screen);
        let session =
            browser.call(Method::POST, "", json!({ "capabilities": { "alwaysMatch": wanted } })).await;
        let session = session.unwrap_or_else(|error| panic!("no browser came up: {error}\n{MISSING}"));
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser.use_screen(screen).await;
        browser
    }

    fn capabilities(&self, screen: Screen) -> Value {
        let args = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--no-proxy-server".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            format!("--user-data-dir={}", self.profile.path().display()),
            format!("--lang={}", screen.language),
        ];
        json!({
            "goog:chromeOptions": { "args": args, "prefs": { "intl.accept_languages": screen.language } },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        })
    }

    pub(crate) async fn use_screen(&self, screen: Screen) {
        let Screen { width, height, dark, .. } = screen;
        let is_phone = width < 600;
        let metrics = json!({ "width": width, "height": height, "mobile": is_phone, "deviceScaleFactor": 1 });
        self.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.cdp("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// The processes of the browser, found by its profile on their command lines.
    fn processes(&self) -> Vec<Pid> {
        let profile = self.profile.path().to_str().unwrap();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let ours = all.filter(|process| {
            let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(profile)
        });
        ours.filter_map(|process| Pid::from_raw(process.file_name().to_str()?.parse().ok()?)).collect()
    }

    /// One WebDriver call. The error is the driver's message.
    async fn call(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let session = if self.session.is_empty() { String::new() } else { format!("/{}", self.session) };
        let url = format!("http://127.0.0.1:{}/session{session}{path}", self.port);
        let mut request = self.client.request(method.clone(), url);
        if method == Method::POST {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let is_ok = answer.status().is_success();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        let value = serde_json::from_str::<Value>(&text).map_err(|error| format!("{error}: {text}"))?;
        if is_ok { Ok(value["value"].clone()) } else { Err(value["value"]["message"].to_string()) }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A command of the Chrome DevTools protocol.
    pub(crate) async fn cdp(&self, command: &str, params: Value) -> Value {
        self.post("/goog/cdp/execute", json!({ "cmd": command, "params": params })).await
    }

    /// A command of the Chrome DevTools protocol that may fail.
    pub(crate) async fn try_cdp(&self, command: &str, params: Value) -> Option<Value> {
        let body = json!({ "cmd": command, "params": params });
        self.call(Method::POST, "/goog/cdp/execute", body).await.ok()
    }

    pub(crate) async fn go(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// Opens another tab with this URL.
    pub(crate) async fn new_tab(&self, url: &str) {
        let tab = self.post("/window/new", json!({ "type": "tab" })).await;
        self.post("/window", json!({ "handle": tab["handle"] })).await;
        self.go(url).await;
    }

    pub(crate) async fn reload(&self) {
        self.post("/refresh", json!({})).await;
    }

    /// Runs a script in the page and returns its result; a promise is awaited.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": [] })).await
    }

    pub(crate) async fn text(&self, script: &str) -> String {
        let value = self.run(&format!("return String({script})")).await;
        value.as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true in the page.
    pub(crate) async fn until(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        super::until(&format!("in the page: {expression}"), async || self.run(&script).await == true).await;
    }

    /// Clicks an element as a person does: one that is covered or out of sight cannot be clicked.
    pub(crate) async fn click(&self, css: &str) {
        let found = self.post("/element", json!({ "using": "css selector", "value": css })).await;
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        self.post(&format!("/element/{id}/click"), json!({})).await;
    }

    /// Types into the focused element.
    pub(crate) async fn keys(&self, text: &str) {
        let press =
            |key: char| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }));
        let actions: Vec<Value> = text.chars().flat_map(press).collect();
        self.post("/actions", json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }))
            .await;
    }

    /// Log entries since the last call: `browser` is the console, `performance` the network.
    pub(crate) async fn log(&self, kind: &str) -> Vec<Value> {
        let lines = self.post("/se/log", json!({ "type": kind })).await;
        lines.as_array().unwrap().clone()
    }

    /// A PNG of the visible part of the page.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        let shot = self.call(Method::GET, "/screenshot", Value::Null).await.unwrap();
        base64(shot.as_str().unwrap())
    }
}

impl Drop for Browser {
    /// The driver ends its browser only on request, so this also has to happen after a failed test.
    #[expect(clippy::disallowed_methods, reason = "nothing can be awaited here")]
    fn drop(&mut self) {
        let request = format!(
            "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
            self.session
        );
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.write_all(request.as_bytes());
            // The answer arrives when the browser has ended.
            let _ = stream.read(&mut [0; 64]);
        }
        let _ = self.driver.start_kill();
        // One that hangs has not ended. Others end a moment later, and write files until then.
        for _ in 0..40 {
            for pid in self.processes() {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = std::fs::remove_dir_all(self.profile.path());
            std::thread::sleep(Duration::from_millis(25));
            if !self.profile.path().exists() {
                break;
            }
        }
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| -> Option<u32> {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        digits.iter().position(|digit| *digit == byte).and_then(|digit| u32::try_from(digit).ok())
    };
    let digits: Vec<u32> = text.bytes().filter_map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - four.len()));
        bits.to_be_bytes().into_iter().skip(1).take(four.len() * 3 / 4)
    });
    bytes.collect()
}
