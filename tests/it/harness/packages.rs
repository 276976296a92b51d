//! Third-party packages, pinned to their content at the time they were chosen, and installed once.

use std::path::{Path, PathBuf};

use super::{said, tool, words};

/// The text of a file that pins packages.
fn pins(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(!text.contains("://"), "{}: a host in it is that of whoever made it", file.display());
    text
}

/// Installs the Node packages that `folder` pins into its `node_modules`, unless they are there.
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

/// A Python with the packages that `requirements` pins, in a virtual environment in cargo's target folder.
pub(crate) async fn python_with(requirements: &Path) -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let (python, installed) = (environment.join("bin/python"), environment.join("installed.txt"));
    let pinned = pins(requirements);
    // The Python that created the environment may be gone.
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
