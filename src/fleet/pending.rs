//! A task that ends with whoever holds it.

use tokio::task::JoinHandle;

/// A wake-up or a place in a queue. Dropped, it is cancelled.
pub(super) struct Pending(JoinHandle<()>);

impl Pending {
    pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.abort();
    }
}
