//! Design, section 6: a partition moves `old` → `joint` → `new`, and no acknowledged write is missed
//! by a later read, whoever knows how much. Tried exhaustively for up to four owners: every row of
//! owners that a move can lead to, every n, r and w with r + w > n, coordinators at every view there
//! has been, every order of the steps.
//!
//! The views and the counting of answers are the real ones ([`View::apply`], [`Tally`], [`seats`]);
//! the model adds what nodes do. And it can fail: without any one of the rules it finds a read that
//! misses a write.
//!
//! [`View::apply`]: atoll_ring::View::apply
//! [`Tally`]: atoll_ring::Tally
//! [`seats`]: atoll_ring::seats

mod path;
mod world;

use path::{Count, Path};
use world::{AfterDeath, Barrier, Quorums, RIGHT, Rules, Step, World};

/// All rows that owners can move to: each seat keeps its owner, or goes to another owner, or to a
/// node that is none. Nodes that are none are all alike, so they come in order.
fn rows(old: &[usize], others: &[usize]) -> Vec<Vec<usize>> {
    let mut rows = vec![vec![]];
    for _ in old {
        let longer = |row: Vec<usize>| {
            let fresh = others.iter().find(|node| !row.contains(node));
            let choices = old.iter().filter(|node| !row.contains(node)).chain(fresh);
            choices.map(|node| [&row[..], &[*node]].concat()).collect::<Vec<_>>()
        };
        rows = rows.into_iter().flat_map(longer).collect();
    }
    rows.retain(|row| row != old);
    rows
}

/// All rows after which nothing is as before but one seat, or two that changed places.
fn small_steps(old: &[usize], others: &[usize]) -> Vec<Vec<usize>> {
    let changed = |row: &Vec<usize>| old.iter().zip(row).filter(|(a, b)| a != b).count();
    let mut rows = rows(old, others);
    rows.retain(|row| {
        changed(row) == 1 || changed(row) == 2 && row.iter().all(|n| old.contains(n))
    });
    rows
}

fn fresh(replicas: usize) -> Vec<usize> {
    (replicas..2 * replicas).collect()
}

/// One move, to anywhere.
fn single_moves(replicas: usize) -> Vec<Path> {
    let start = Path::new(replicas);
    let rows = rows(&start.row(), &fresh(replicas));
    rows.iter().map(|row| start.clone().begin(row).finish()).collect()
}

/// A move, then another one. The second may lead back to nodes that the first one left.
fn double_moves(replicas: usize, rows: fn(&[usize], &[usize]) -> Vec<Vec<usize>>) -> Vec<Path> {
    after_each(replicas, rows, |path, row| path.begin(row).finish())
}

/// A move that is cancelled, then another one, which may be the same.
fn cancelled_moves(replicas: usize, rows: fn(&[usize], &[usize]) -> Vec<Vec<usize>>) -> Vec<Path> {
    after_each(replicas, rows, |path, row| path.begin(row).cancel())
}

fn after_each(
    replicas: usize,
    rows: fn(&[usize], &[usize]) -> Vec<Vec<usize>>,
    first: impl Fn(Path, &[usize]) -> Path,
) -> Vec<Path> {
    let start = Path::new(replicas);
    let mut paths = Vec::new();
    for row in rows(&start.row(), &fresh(replicas)) {
        let middle = first(start.clone(), &row);
        let now = middle.row();
        // Nodes that were here already, and new ones, are not alike: each kind may come first.
        let was_here = |node: &usize| *node < replicas || row.contains(node);
        let (known, new): (Vec<usize>, Vec<usize>) =
            (0..2 * replicas).filter(|node| !now.contains(node)).partition(was_here);
        let mut targets = rows(&now, &[&known[..], &new].concat());
        targets.extend(rows(&now, &[&new[..], &known].concat()));
        targets.sort();
        targets.dedup();
        paths.extend(targets.iter().map(|target| middle.clone().begin(target).finish()));
    }
    paths
}

/// A move during which one who leaves dies.
fn dying_leavers(replicas: usize, rows: fn(&[usize], &[usize]) -> Vec<Vec<usize>>) -> Vec<Path> {
    let mut paths = Vec::new();
    let start = Path::new(replicas);
    for row in rows(&start.row(), &fresh(replicas)) {
        for leaver in start.row().into_iter().filter(|node| !row.contains(node)) {
            paths.push(start.clone().begin(&row).death(leaver, None).finish());
            paths.push(start.clone().begin(&row).death(leaver, None).cancel());
        }
    }
    paths
}

/// A move during which one who stays dies, and what it owned moves on behind.
fn dying_stayers(replicas: usize, rows: fn(&[usize], &[usize]) -> Vec<Vec<usize>>) -> Vec<Path> {
    let mut paths = Vec::new();
    let start = Path::new(replicas);
    for row in rows(&start.row(), &fresh(replicas)) {
        for seat in (0..replicas).filter(|seat| row[*seat] == *seat) {
            // Who left a moment before may be the heir.
            let was_here = (0..replicas).filter(|node| !row.contains(node));
            let new = (replicas..2 * replicas).find(|node| !row.contains(node));
            for heir in was_here.chain(new) {
                let mut target = row.clone();
                target[seat] = heir;
                let path = start.clone().begin(&row).death(seat, Some(&target));
                paths.push(path.finish().begin_waiting().finish());
            }
        }
    }
    paths
}

/// An owner dies, and another node takes its seat.
fn replaced_dead(replicas: usize) -> Vec<Path> {
    (0..replicas)
        .map(|seat| {
            let start = Path::new(replicas);
            let mut row = start.row();
            row[seat] = replicas;
            start.death(seat, Some(&row)).begin_waiting().finish()
        })
        .collect()
}

/// One owner more, and then one less again, not always the one that came.
fn more_and_fewer(replicas: usize) -> Vec<Path> {
    let start = Path::new(replicas);
    let more: Vec<usize> = (0..=replicas).collect();
    let middle = start.begin(&more).finish();
    let mut paths = Vec::new();
    for gone in 0..=replicas {
        let left: Vec<usize> = more.iter().copied().filter(|node| *node != gone).collect();
        let mut all = rows(&left, &[]);
        all.push(left);
        paths.extend(all.iter().map(|row| middle.clone().begin(row).finish()));
    }
    paths
}

/// Nothing goes wrong on any of these paths.
fn check(what: &str, replicas: usize, paths: &[Path], all_quorums: bool) {
    let (mut states, mut settings) = (0, 0);
    for path in paths {
        let quorums: Vec<Quorums> = if all_quorums {
            Quorums::all(replicas as u8).collect()
        } else {
            Quorums::tight(replicas as u8).collect()
        };
        for quorums in quorums {
            match World::explore(path, RIGHT, quorums) {
                Ok(count) => states += count,
                Err(steps) => panic!("{what}, {quorums:?}\n{path}\n{steps:#?}"),
            }
            settings += 1;
        }
    }
    println!(
        "{what}, {replicas} owners: {} paths, {settings} settings, {states} states",
        paths.len()
    );
    assert!(!paths.is_empty());
}

/// These rules let a read miss a write on one of the paths.
fn check_broken(rules: Rules, paths: &[Path]) -> Vec<Step> {
    let (mut broken, mut settings, mut first) = (0, 0, None);
    for path in paths {
        let replicas = (path.nodes() / 2) as u8;
        for quorums in Quorums::tight(replicas) {
            settings += 1;
            if let Err(steps) = World::explore(path, rules, quorums) {
                broken += 1;
                first.get_or_insert((steps, quorums, path));
            }
        }
    }
    let (steps, quorums, path) = first.unwrap_or_else(|| panic!("{rules:?} are as good"));
    println!("{broken} of {settings} settings: {path}, {quorums:?}: {steps:?}");
    steps
}

#[test]
fn one_move() {
    for replicas in 1..=3 {
        check("one move", replicas, &single_moves(replicas), true);
    }
    check("one move", 4, &single_moves(4), false);
}

#[test]
fn two_moves_back_to_back() {
    check("two moves", 1, &double_moves(1, rows), true);
    check("two moves", 2, &double_moves(2, rows), true);
    check("two moves", 3, &double_moves(3, small_steps), true);
    check("two moves", 4, &double_moves(4, small_steps), false);
}

#[test]
fn a_cancel_and_another_move() {
    check("a cancelled move", 1, &cancelled_moves(1, rows), true);
    check("a cancelled move", 2, &cancelled_moves(2, rows), true);
    check("a cancelled move", 3, &cancelled_moves(3, small_steps), true);
    check("a cancelled move", 4, &cancelled_moves(4, small_steps), false);
}

/// Seats that come and go need no copy and nobody's word: no bucket has keys there.
#[test]
fn a_change_of_replicas() {
    for replicas in 1..=3 {
        check("one more and one less", replicas, &more_and_fewer(replicas), true);
    }
}

/// A disk that is gone takes with it what it alone had. What others have stays visible, and reaches
/// the new owners.
#[test]
fn owners_that_die() {
    for replicas in 2..=3 {
        check("a dying leaver", replicas, &dying_leavers(replicas, rows), false);
        check("a dead owner", replicas, &replaced_dead(replicas), false);
    }
    check("a dying leaver", 4, &dying_leavers(4, small_steps), false);
    check("a dead owner", 4, &replaced_dead(4), false);
    check("a dying stayer", 2, &dying_stayers(2, rows), false);
    check("a dying stayer", 3, &dying_stayers(3, small_steps), false);
}

/// The larger half: some minutes in release mode.
#[test]
#[ignore = "minutes: cargo test --release -p atoll-ring --test moves -- --ignored --nocapture"]
fn at_length() {
    check("one move", 4, &single_moves(4), true);
    check("two moves", 3, &double_moves(3, rows), false);
    check("a cancelled move", 3, &cancelled_moves(3, rows), false);
    check("a dying stayer", 3, &dying_stayers(3, rows), false);
}

/// Without the fence a coordinator that slept through the move writes to owners that are gone.
#[test]
fn the_fence_is_needed() {
    check_broken(Rules { fence: false, ..RIGHT }, &single_moves(2));
}

/// A majority of the old owners may know of the move while the one that leaves does not: it goes on
/// taking writes after it was copied from.
#[test]
fn the_leaver_must_know() {
    check_broken(Rules { barrier: Barrier::Majority, ..RIGHT }, &single_moves(3));
    check_broken(Rules { barrier: Barrier::Nobody, ..RIGHT }, &single_moves(1));
}

/// Reads that ask the old owners only, while the partition is joint, miss what the new ones have
/// taken alone since.
#[test]
fn joint_reads_need_both_sets() {
    check_broken(Rules { reads: Count::OldOnly, ..RIGHT }, &single_moves(2));
}

/// Design, section 5: "counting a joining replica as an ordinary ack loses acked writes".
#[test]
fn who_joins_is_no_ordinary_owner() {
    check_broken(Rules { writes: Count::Anybody, ..RIGHT }, &single_moves(2));
    check_broken(Rules { reads: Count::Anybody, ..RIGHT }, &single_moves(2));
}

/// The copy made for a move that was cancelled lacks what was written since.
#[test]
fn a_copy_belongs_to_its_move() {
    check_broken(Rules { sessions: false, ..RIGHT }, &cancelled_moves(1, rows));
}

/// In the place of a dead owner one other is not enough: with w = 2 of 3 the write may be at the
/// dead one and the third.
#[test]
fn all_others_stand_in_for_a_dead_owner() {
    check_broken(Rules { after_death: AfterDeath::AnyOther, ..RIGHT }, &dying_leavers(3, rows));
}

/// Somebody who was declared dead and lives on, out of reach of everybody but an old coordinator,
/// still answers it. So an operator declares dead only what is: the other nodes cannot know.
#[test]
fn the_dead_must_be_dead() {
    check_broken(Rules { dead_are_dead: false, ..RIGHT }, &dying_leavers(2, rows));
}
