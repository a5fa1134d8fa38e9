//! Reading rows in order as they will be when all that is queued has been applied.
//!
//! Single rows are looked up in what is queued first. A scan has to bring two sorted lists together, of which the one on the
//! disk may grow by what was in the other a moment ago.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Disk;
use crate::storage::{Space, StoreError};

impl Disk {
    /// As [`Disk::scan`], as if all that is queued had been applied.
    ///
    /// # Errors
    /// The engine failed; the node stops.
    pub fn scan_queued(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        // first what is queued: whatever the writer applies from now on is in both, and the same
        let queued: BTreeMap<Bytes, Option<Bytes>> = {
            let ahead = self.shared.ahead.lock().expect("no panic holds it");
            let behind = |row: &Bytes| after.is_none_or(|after| row[..] > *after);
            ahead
                .iter()
                .filter(|((at, row), _)| *at == space && row.starts_with(prefix) && behind(row))
                .map(|((_, row), (_, value))| (row.clone(), value.clone()))
                .collect()
        };
        // every row that is about to go leaves room for another
        let gone = queued.values().filter(|value| value.is_none()).count();
        let wanted = limit.saturating_add(gone);
        let applied = self.scan(space, prefix, after, wanted)?;
        if queued.is_empty() {
            return Ok(applied);
        }
        let more = applied.len() == wanted;
        let mut rows: BTreeMap<Bytes, Bytes> = applied.into_iter().collect();
        let last = rows.last_key_value().map(|(row, _)| row.clone());
        for (row, value) in queued {
            // behind the last applied row of a full page there may be others before it
            if more && last.as_ref().is_some_and(|last| row > *last) {
                continue;
            }
            match value {
                Some(value) => drop(rows.insert(row, value)),
                None => drop(rows.remove(&row)),
            }
        }
        Ok(rows.into_iter().take(limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use atoll_wire::Ack;

    use super::*;
    use crate::storage::{Write, memory::MemoryStore};

    /// Page by page a scan sees each row once and as it will be, whatever is applied, queued or queued to go.
    #[tokio::test(start_paused = true)]
    async fn a_scan_of_what_is_queued_misses_nothing() {
        let store = Arc::new(MemoryStore::new());
        let (disk, _writer) = Disk::on_task(store, Duration::from_millis(2), None).expect("new");
        let write = |name: u8, value: Option<u8>| Write {
            space: Space::Data,
            row: vec![1, name].into(),
            value: value.map(|value| vec![value].into()),
        };
        let applied = (0..40).step_by(2).map(|name| write(name, Some(1))).collect();
        disk.write(applied, Ack::Durable).done().await.expect("memory");
        let later = (0..40).map(|name| match name % 5 {
            0 | 1 => write(name, None),
            2 => write(name, Some(2)),
            _ => write(name + 100, Some(3)),
        });
        drop(disk.write(later.collect(), Ack::Durable));
        let mut expected: Vec<(u8, u8)> = Vec::new();
        for name in 0..140u8 {
            match (name, name % 5) {
                (0..40, 2) => expected.push((name, 2)),
                (0..40, 3 | 4) if name % 2 == 0 => expected.push((name, 1)),
                (100.., 3 | 4) => expected.push((name, 3)),
                _ => {}
            }
        }
        for limit in [1, 2, 3, 7, 100] {
            let (mut seen, mut after) = (Vec::new(), None::<Bytes>);
            loop {
                let page = disk.scan_queued(Space::Data, &[1], after.as_deref(), limit);
                let page = page.expect("memory");
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                assert!(page.len() <= limit);
                seen.extend(page.iter().map(|(row, value)| (row[1], value[0])));
            }
            assert_eq!(seen, expected, "limit {limit}");
        }
    }
}
