//! What a program gets that follows a fleet.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{Stream, StreamExt as _};

/// Yields one value after another, as they come: a [`Stream`] that ends when there will be no more. It keeps no
/// queue, so a slow reader costs nothing.
pub struct Subscription<T>(Pin<Box<dyn Stream<Item = T> + Send>>);

impl<T> Subscription<T> {
    pub(super) fn new(values: impl Stream<Item = T> + Send + 'static) -> Self {
        Self(Box::pin(values.fuse()))
    }

    /// Waits for the next value; `None` when there will be no more. Cancel safe.
    pub async fn next(&mut self) -> Option<T> {
        self.0.next().await
    }
}

impl<T> Stream for Subscription<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}
