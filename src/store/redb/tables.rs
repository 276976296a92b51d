//! The tables of the file: accounts, tickets, and metadata of the whole.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use wxtokend_core::account::Appid;
use wxtokend_core::ticket::Credential;

use super::error::{foreign, unusable};
use crate::store::{Batch, Contents, StoreError};

pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("wxtokend_meta");
pub(super) const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("wxtokend_accounts");
const TICKETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("wxtokend_tickets");
pub(super) const FORMAT: &str = "1";

pub(super) fn check_format(path: &Path, database: &impl ReadableDatabase) -> Result<(), StoreError> {
    match format_of(database) {
        Ok(Some(format)) if format == FORMAT => Ok(()),
        Ok(Some(format)) => {
            Err(foreign(path, &format!("a store of format {format}; this program writes {FORMAT}")))
        }
        Ok(None) => Err(foreign(path, "some other program's redb file")),
        Err(error) => Err(unusable("read", path, error)),
    }
}

fn format_of(database: &impl ReadableDatabase) -> Result<Option<String>, redb::Error> {
    let read = database.begin_read()?;
    match read.open_table(META) {
        Ok(meta) => Ok(meta.get("format")?.map(|format| format.value().to_owned())),
        Err(TableError::Storage(error)) => Err(error.into()),
        Err(_other_table) => Ok(None),
    }
}

pub(super) fn read_all(database: &impl ReadableDatabase) -> Result<Contents, redb::Error> {
    let mut records = BTreeMap::new();
    let hosts = each_record(database, |of, record| drop(records.insert(of, record.to_vec())))?;
    Ok(Contents { records, hosts })
}

/// Passes every record to `visit`; returns the hosts.
pub(super) fn each_record(
    database: &impl ReadableDatabase,
    mut visit: impl FnMut(Credential, &[u8]),
) -> Result<Vec<String>, redb::Error> {
    let read = database.begin_read()?;
    let hosts = read.open_table(META)?.get("hosts")?;
    let hosts =
        hosts.map(|hosts| hosts.value().split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
    for entry in read.open_table(ACCOUNTS)?.iter()? {
        let (key, record) = entry?;
        visit(credential(key.value())?, record.value());
    }
    let tickets = match read.open_table(TICKETS) {
        Ok(tickets) => tickets,
        // No ticket was ever stored there.
        Err(TableError::TableDoesNotExist(_)) => return Ok(hosts),
        Err(error) => return Err(error.into()),
    };
    for entry in tickets.iter()? {
        let (key, record) = entry?;
        visit(credential(key.value())?, record.value());
    }
    Ok(hosts)
}

/// The key of an account's record is its appid; that of a ticket's is `appid/kind`, which is never an appid.
fn credential(key: &str) -> Result<Credential, redb::Error> {
    let read = match key.split_once('/') {
        None => Appid::new(key).ok().map(Credential::token),
        Some((appid, kind)) => Appid::new(appid)
            .ok()
            .and_then(|appid| kind.parse().ok().map(|kind| Credential::ticket(appid, kind))),
    };
    read.ok_or_else(|| redb::Error::Corrupted("a record's key is neither an appid nor a ticket".to_owned()))
}

/// Runs one transaction, which is on disk when this returns.
pub(super) fn transact(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut accounts = write.open_table(ACCOUNTS)?;
        let (of_accounts, of_tickets): (Vec<_>, Vec<_>) =
            batch.records.iter().partition(|(of, _)| of.ticket.is_none());
        for (of, record) in of_accounts {
            accounts.insert(of.appid.as_str(), record.as_slice())?;
        }
        if !of_tickets.is_empty() {
            let mut tickets = write.open_table(TICKETS)?;
            for (of, record) in of_tickets {
                tickets.insert(of.to_string().as_str(), record.as_slice())?;
            }
        }
        if let Some(hosts) = &batch.hosts {
            write.open_table(META)?.insert("hosts", hosts.join(" ").as_str())?;
        }
    }
    write.commit()?;
    Ok(())
}
