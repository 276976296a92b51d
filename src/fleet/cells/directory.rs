//! All accounts of a fleet, as readers find them.

use std::collections::HashMap;
use std::sync::Arc;

use wxtokend_core::account::Appid;

use super::cell::{AccountCell, Snapshot};

/// All accounts: by appid for readers, in order for lists.
#[derive(Default)]
pub(crate) struct Directory {
    /// Its keys come from the configuration, so no client can add colliding ones to slow down lookups.
    pub(crate) by_appid: HashMap<Appid, Arc<AccountCell>, foldhash::fast::RandomState>,
    pub(crate) in_order: Vec<Appid>,
}

impl Directory {
    pub(crate) fn new(cells: impl IntoIterator<Item = (Appid, Arc<AccountCell>)>) -> Self {
        let by_appid: HashMap<_, _, _> = cells.into_iter().collect();
        let mut in_order: Vec<_> = by_appid.keys().cloned().collect();
        in_order.sort_unstable();
        Self { by_appid, in_order }
    }

    /// The first `limit` accounts after `after` that are `wanted`, by appid, and whether more follow. `after`
    /// need not be an existing account.
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> (Vec<Arc<AccountCell>>, bool) {
        let start = after.map_or(0, |after| self.in_order.partition_point(|appid| appid.as_str() <= after));
        let cells = self.in_order[start..].iter().filter_map(|appid| self.by_appid.get(appid));
        let mut found = cells.filter(|cell| wanted(&cell.load()));
        let page = found.by_ref().take(limit).cloned().collect();
        (page, found.next().is_some())
    }
}
