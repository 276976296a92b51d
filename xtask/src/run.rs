//! Runs a program until something is found in its output.

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// A running program, which is killed on drop.
pub(crate) struct Run<'a> {
    child: Child,
    log: &'a Path,
    find: fn(&str) -> Option<String>,
    until: Instant,
    limit: Duration,
}

impl<'a> Run<'a> {
    /// Starts `command` with its output in `log`; `find` searches that, line by line, for what the program
    /// has noticed.
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

    /// Returns what it has noticed, once it has ended or noticed something; the outer `None` while it is
    /// running.
    pub(crate) fn poll(&mut self) -> Outcome<Option<Option<String>>> {
        // Before the log is read: the last output must not be missed.
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

/// Returns what the first of `runs` to notice something has noticed; `None` if none does.
pub(crate) fn first_to_notice(mut runs: Vec<Run<'_>>) -> Outcome<Option<String>> {
    while !runs.is_empty() {
        let mut still = Vec::new();
        for mut run in runs {
            match run.poll()? {
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
