//! Packages of others, pinned to what they held when they were chosen, and installed once.

use std::path::{Path, PathBuf};

use super::{said, tool, words};

/// The text of a file that pins packages.
fn pins(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(!text.contains("://"), "{}: a host in it is that of whoever made it", file.display());
    text
}

/// Puts what `folder` pins for Node into its `node_modules`, unless it is there.
pub(crate) async fn node_packages(folder: &Path) {
    let (pinned, installed) =
        (folder.join("package-lock.json"), folder.join("node_modules/.package-lock.json"));
    for file in [&pinned, &folder.join("package.json")] {
        pins(file);
    }
    let age = |file: &Path| std::fs::metadata(file).and_then(|data| data.modified()).ok();
    if age(&installed) > age(&pinned) {
        return;
    }
    let mut npm = tool("npm", "npm").await;
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
    let ended = said(npm).await;
    assert!(ended.status.success(), "npm ci: {}", words(&ended));
}

/// A Python that has what `requirements` pins, in a virtual environment among what cargo builds.
pub(crate) async fn python_with(requirements: &Path) -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let (python, installed) = (environment.join("bin/python"), environment.join("installed.txt"));
    let pinned = pins(requirements);
    // The Python that it was made with may be gone.
    if python.exists() && std::fs::read_to_string(&installed).is_ok_and(|text| text == pinned) {
        return python;
    }
    let mut venv = tool("python3", "python3 python3-venv").await;
    venv.args(["-m", "venv", "--clear"]).arg(&environment);
    let ended = said(venv).await;
    assert!(ended.status.success(), "python3 -m venv (python3-venv): {}", words(&ended));
    let mut pip = tool(python.to_str().unwrap(), "python3-venv").await;
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--require-hashes"]);
    pip.args(["--no-deps", "--only-binary", ":all:", "-r"]).arg(requirements);
    let ended = said(pip).await;
    assert!(ended.status.success(), "pip install: {}", words(&ended));
    std::fs::write(installed, pinned).unwrap();
    python
}
