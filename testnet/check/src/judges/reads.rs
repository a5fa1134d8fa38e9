//! Overlapping quorums see each other. A write whose acknowledgements came from `a` of the first `n` owners, all on stable
//! storage, and a read with answers from `b` of the first `m` owners share an owner if a + b > max(n, m). A read that begins
//! after such a write was acknowledged sees it: its value is there, unless something that had seen it had begun, and what it
//! had seen is gone. A blocking read counts as a write of what it showed: as many owners hold it as it needed.
//!
//! **How it stays linear.** Reads are judged in classes of equal (n, owners), of which there are few. For one class we go
//! through the history once and keep, per key, the values that must be seen, by the moment since when. A read looks at those
//! older than itself; each is among what it saw, or is the violation at which it stops looking.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    books::{Books, Entry, Moment, Place},
    history::{Levels, What},
    provenance::{Covered, MayGo, Since, UNKNOWN},
    verdict::{Findings, Promise},
};

pub(crate) fn judge(books: &Books, found: &mut Findings) {
    let may_go = MayGo::new(books, found);
    let reads = books.entries.iter().filter(|entry| entry.is_answered_read());
    let classes: BTreeSet<(u8, u8)> =
        reads.map(|read| (read.with.n, read.with.owners)).filter(|class| class.1 > 0).collect();
    for class in classes {
        Class { books, class, known: known_to(books, found, class) }.judge(&may_go, found);
    }
}

/// Since when each write is sure to be seen by a read of this class.
fn known_to(books: &Books, found: &mut Findings, class: (u8, u8)) -> Vec<Since> {
    let mut known = vec![UNKNOWN; books.entries.len()];
    for (place, entry) in books.entries.iter().enumerate() {
        found.step();
        if entry.dot().is_some()
            && entry.is_certain()
            && meet(owners_sure(&entry.with), entry, class)
        {
            known[place] = known[place].min((entry.ended, place));
        }
        if entry.with.blocking && meet(entry.with.owners, entry, class) {
            for (value, _) in entry.found() {
                found.step();
                if let Some(put) = books.writer(entry.key, *value) {
                    known[put] = known[put].min((entry.ended, put));
                }
            }
        }
    }
    known
}

fn meet(owners: u8, entry: &Entry, (n, answers): (u8, u8)) -> bool {
    owners > 0 && u16::from(owners) + u16::from(answers) > u16::from(entry.with.n.max(n))
}

/// How many owners are sure to have an acknowledged write on stable storage: at worst everybody who had it in memory only
/// was an owner.
fn owners_sure(with: &Levels) -> u8 {
    with.owners.saturating_sub(with.need.saturating_sub(with.durable))
}

/// The reads of one class.
struct Class<'a> {
    books: &'a Books,
    class: (u8, u8),
    known: Vec<Since>,
}

impl Class<'_> {
    fn judge(&self, may_go: &MayGo, found: &mut Findings) {
        let covered = Covered::new(self.books, found, |place| self.known[place]);
        let mut there: BTreeMap<usize, BTreeSet<(Moment, Place)>> = BTreeMap::new();
        for (now, (place, is_end)) in self.books.moments.iter().copied().enumerate() {
            found.step();
            let (now, entry) = (now as Moment, &self.books.entries[place]);
            let there = there.entry(entry.key).or_default();
            match (entry.what, is_end) {
                (What::Put | What::Delete, false) => {
                    for put in may_go.first_replaced_by(self.books, entry) {
                        found.step();
                        there.remove(&(self.known[put].0, put));
                    }
                }
                (What::Put, true) if self.known[place].0 == now && may_go.since(place) > now => {
                    there.insert((now, place));
                }
                (What::Get, true) => {
                    if (entry.with.n, entry.with.owners) == self.class && entry.is_answered_read() {
                        self.must_see(entry, there, found);
                        self.must_not_see(entry, &covered, found);
                    }
                    for (value, _) in entry.found().iter().filter(|_| entry.with.blocking) {
                        found.step();
                        let put = self.books.writer(entry.key, *value);
                        let put =
                            put.filter(|put| self.known[*put].0 == now && may_go.since(*put) > now);
                        there.extend(put.map(|put| (now, put)));
                    }
                }
                (What::Get, false) | (What::Put | What::Delete, true) => {}
            }
        }
    }

    fn must_see(&self, read: &Entry, there: &BTreeSet<(Moment, Place)>, found: &mut Findings) {
        let (books, key) = (self.books, self.books.key_of(read));
        let mut saw: Option<BTreeSet<Place>> = None;
        for (since, put) in there.range(..(read.begun, 0)) {
            found.step();
            let saw = saw.get_or_insert_with(|| {
                found.promised_reads += 1;
                let values = read.found().iter();
                values.filter_map(|(value, _)| books.writer(read.key, *value)).collect()
            });
            if !saw.contains(put) {
                let op = books.entries[*put].op;
                found.add(Promise::ReadsSeeWrites, key, &[read.op, op], || {
                    let through = books.entries[books.moments[*since as usize].0].op;
                    format!("it had to see {op}, sure since the answer to {through}, and did not")
                });
                break;
            }
        }
    }

    fn must_not_see(&self, read: &Entry, covered: &Covered, found: &mut Findings) {
        for pair in read.found() {
            found.step();
            let Some((since, by)) = covered.shown(*pair).filter(|(since, _)| *since < read.begun)
            else {
                continue;
            };
            let by = self.books.entries[by].op;
            let operations = [read.op, pair.0, by];
            found.add(Promise::NoResurrection, self.books.key_of(read), &operations, || {
                let through = self.books.entries[self.books.moments[since as usize].0].op;
                let value = pair.0;
                format!(
                    "it saw {value}, which {by} had seen, and that was sure since the answer to {through}"
                )
            });
        }
    }
}
