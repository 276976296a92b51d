//! Runs a program until something in what it prints is found.

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// A program under way that is ended with this.
pub(crate) struct Run<'a> {
    child: Child,
    log: &'a Path,
    find: fn(&str) -> Option<String>,
    until: Instant,
    limit: Duration,
}

impl<'a> Run<'a> {
    /// Starts `command`, which prints into `log`, in which `find` looks for what it has noticed.
    pub(crate) fn start(
        command: &mut Command,
        log: &'a Path,
        limit: Duration,
        find: fn(&str) -> Option<String>,
    ) -> Outcome<Self> {
        let file = File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { child, log, find, until: Instant::now() + limit, limit })
    }

    /// What it has noticed, once it is over or has noticed something; the outer `None` while it goes on.
    pub(crate) fn told(&mut self) -> Outcome<Option<Option<String>>> {
        // Before the log is read: what is printed last must not be missed.
        let ended = self.child.try_wait()?;
        let text = String::from_utf8_lossy(&fs::read(self.log)?).into_owned();
        if let Some(found) = text.lines().find_map(self.find) {
            return Ok(Some(Some(found)));
        }
        Ok(match ended {
            Some(status) if status.success() => Some(None),
            Some(status) => {
                let last = text.lines().last().unwrap_or_default();
                Some(Some(format!("ends with {status}: {last}")))
            }
            None if Instant::now() > self.until => {
                Some(Some(format!("hangs: not over after {} s", self.limit.as_secs())))
            }
            None => None,
        })
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the first of `runs` to notice something has noticed; nothing, when none does.
pub(crate) fn first_to_notice(mut runs: Vec<Run<'_>>) -> Outcome<Option<String>> {
    while !runs.is_empty() {
        let mut still = Vec::new();
        for mut run in runs {
            match run.told()? {
                Some(Some(noticed)) => return Ok(Some(noticed)),
                Some(None) => {}
                None => still.push(run),
            }
        }
        runs = still;
        sleep(Duration::from_millis(100));
    }
    Ok(None)
}
