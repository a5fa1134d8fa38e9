//! The membership log as nodes use it: it elects, agrees, says why it cannot, and never lets a forgotten vote count twice.
//!
//! Everything runs on virtual time over a network in memory, with the real node and the real Raft group.

mod group;

use std::time::Duration;

use atoll_node::{MembershipLog as _, NotProposed, storage::Space};
use atoll_ring::{ClusterId, Command, Epoch, NodeId, Rejected};
use atoll_wire::{Effect, ErrorCode};

use group::{CLUSTER, Group, invite};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

/// The first voters elect one of them. What it takes in becomes everybody's view, whoever was asked; who does not lead says
/// who does.
#[tokio::test(start_paused = true)]
async fn a_proposal_becomes_everybodys_view() {
    let group = Group::start(4).await;
    let leader = group.leader().await;
    for (number, id) in group.up().into_iter().enumerate() {
        let command = invite(u8::try_from(number).expect("few"));
        if id != leader {
            let elsewhere = group.propose_at(id, command.clone()).await;
            assert!(matches!(elsewhere, Err(NotProposed::LedBy(_))), "{elsewhere:?}");
        }
        let epoch = group.ask(id, &command).await.expect("all are there");
        assert_eq!(epoch, Epoch(2 + number as u64));
        assert!(group.epoch(leader) >= epoch.0, "whoever proposed has it");
    }
    group.until_epoch(Epoch(5)).await;
    let views: Vec<_> = group.up().iter().map(|id| group.node(*id).view()).collect();
    assert!(views.iter().all(|view| *view == views[0] && view.invitations().len() == 4));
    let standing = group.standing(leader);
    assert_eq!((standing.leader, standing.leads), (Some(leader), true));
    assert_eq!((standing.voters_reachable, standing.frozen.as_str()), (3, ""));
}

/// Processors that others have taken make disks slow. With a sync of 1.2 s, three in a row for one entry, nobody was ever
/// elected: those who stood for election grew impatient while the others still wrote down whom they had voted for.
#[tokio::test(start_paused = true)]
async fn voters_with_slow_disks_agree() {
    let group = Group::start_on(3, Duration::from_millis(1200)).await;
    let leader = group.leader().await;
    for number in 1..=8 {
        let taken = group.propose_at(leader, invite(number)).await;
        assert_eq!(taken, Ok(Epoch(1 + u64::from(number))));
    }
    assert_eq!(group.leader().await, leader, "nobody else had to be chosen");
}

/// A command that does not fit changes nothing, uses up no epoch, and says why.
#[tokio::test(start_paused = true)]
async fn a_rejected_command_changes_nothing() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    assert_eq!(group.propose_at(leader, invite(1)).await, Ok(Epoch(2)));
    let again = group.propose_at(leader, invite(1)).await;
    assert_eq!(again, Err(Rejected::IdTaken { node: NodeId(101) }.into()));
    let refused = group.ask(ONE, &invite(1)).await.expect_err("the id is taken");
    assert_eq!((refused.code, refused.effect), (ErrorCode::RingRejected, Effect::NotApplied));
    assert_eq!(group.propose_at(leader, invite(2)).await, Ok(Epoch(3)));
}

/// Two at once: both are taken, one after the other.
#[tokio::test(start_paused = true)]
async fn two_proposals_at_once_have_an_order() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    let (one, two) =
        tokio::join!(group.propose_at(leader, invite(1)), group.propose_at(leader, invite(2)));
    let mut epochs = [one.expect("taken"), two.expect("taken")];
    epochs.sort();
    assert_eq!(epochs, [Epoch(2), Epoch(3)]);
}

/// The leader dies: another one takes over, with everything that was agreed on; the old one comes back as a follower.
#[tokio::test(start_paused = true)]
async fn another_leads_when_the_leader_dies() {
    let mut group = Group::start(3).await;
    let first = group.leader().await;
    group.propose_at(first, invite(1)).await.expect("all are there");
    group.crash(first).await;
    let second = group.leader().await;
    assert_ne!(first, second);
    assert_eq!(group.propose_at(second, invite(2)).await, Ok(Epoch(3)));
    group.boot(first).await;
    group.until_epoch(Epoch(3)).await;
    assert_eq!(group.ask(first, &invite(3)).await, Ok(Epoch(4)));
}

/// Without a majority nothing is agreed on, and the refusal says why; data is served as ever. When one more comes back the
/// ring can be changed again, and what was refused has left no trace.
#[tokio::test(start_paused = true)]
async fn without_a_majority_the_ring_is_frozen_and_data_is_not() {
    let mut group = Group::start(3).await;
    let leader = group.leader().await;
    group.propose_at(leader, invite(1)).await.expect("all are there");
    let others: Vec<NodeId> = group.up().into_iter().filter(|id| *id != leader).collect();
    for other in &others {
        group.crash(*other).await;
    }
    group.put_and_get(leader, "at once").await.expect("data does not wait");
    let frozen = group.propose_at(leader, invite(2)).await;
    let said = format!("1 of 3 voters reachable: {leader}");
    assert_eq!(frozen, Err(NotProposed::Frozen(said.clone())));
    let refused = group.ask(leader, &invite(2)).await.expect_err("no majority");
    assert_eq!((refused.code, refused.effect), (ErrorCode::RingFrozen, Effect::NotApplied));
    let standing = group.standing(leader);
    assert_eq!(standing.frozen, format!("ring frozen at epoch 2: {said}"));
    assert_eq!((standing.leads, standing.voters_reachable), (false, 1));
    group.put_and_get(leader, "later").await.expect("data does not wait");

    group.crash(leader).await;
    group.boot(leader).await;
    assert_eq!(group.epoch(leader), 2, "it serves from the view on its disk");
    group.put_and_get(leader, "after a start, alone").await.expect("data does not wait");

    group.boot(others[0]).await;
    group.leader().await;
    assert_eq!(group.ask(leader, &invite(2)).await, Ok(Epoch(3)));
}

/// A leader that is cut off does not believe in itself for long, and what it is asked then is not done.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_agrees_on_nothing() {
    let group = Group::start(3).await;
    let old = group.leader().await;
    group.isolate(old);
    let refused = group.propose_at(old, invite(1)).await;
    assert!(matches!(refused, Err(NotProposed::Frozen(_))), "{refused:?}");
    let new = group
        .until("another leads", |group| {
            group.up().into_iter().find(|id| *id != old && group.standing(*id).leads)
        })
        .await;
    assert!(!group.standing(old).leads);
    assert_eq!(group.propose_at(new, invite(2)).await, Ok(Epoch(2)));
    group.network.mend_all();
    group.until_epoch(Epoch(2)).await;
    assert_eq!(group.node(old).view(), group.node(new).view());
    assert!(!group.node(old).view().invitations().iter().any(|open| open.node == NodeId(101)));
}

/// All nodes lose power at once. They come back with what was agreed on, and go on.
#[tokio::test(start_paused = true)]
async fn a_power_loss_of_all_loses_nothing() {
    let mut group = Group::start(3).await;
    for round in 0..3u8 {
        let leader = group.leader().await;
        let epoch = group.propose_at(leader, invite(round)).await.expect("all are there");
        assert_eq!(epoch, Epoch(2 + u64::from(round)));
        for id in [ONE, TWO, THREE] {
            group.crash(id).await;
        }
        for id in [ONE, TWO, THREE] {
            group.boot(id).await;
        }
        assert!(group.epoch(leader) >= epoch.0, "whoever proposed had it on its disk");
    }
    let leader = group.leader().await;
    assert_eq!(group.propose_at(leader, invite(9)).await, Ok(Epoch(5)));
}

/// The log is cut when it grows, and whoever was away gets the view instead.
#[tokio::test(start_paused = true)]
async fn a_long_log_is_cut() {
    let mut group = Group::start(3).await;
    let mut leader = group.leader().await;
    let away = group.up().into_iter().find(|id| *id != leader).expect("two others");
    group.crash(away).await;
    let mut epoch = Epoch(1);
    for number in 0..400u32 {
        let command = Command::Incarnation { node: THREE, incarnation: number + 1 };
        loop {
            match group.propose_at(leader, command.clone()).await {
                Ok(made) => break epoch = made,
                Err(why) => {
                    assert!(matches!(why, NotProposed::Frozen(_)), "{why:?}");
                    leader = group.leader().await;
                }
            }
        }
    }
    let entries = |id: NodeId| {
        let rows = group.store(id).synced(Space::Meta);
        rows.iter().filter(|(row, _)| row.starts_with(b"raft/log/")).count()
    };
    assert!(entries(leader) < 256, "{} entries", entries(leader));
    group.boot(away).await;
    group.until_epoch(epoch).await;
    let other = group.up().into_iter().find(|id| ![leader, away].contains(id)).expect("three");
    group.crash(other).await; // so that the one that was away is needed
    let command = Command::Incarnation { node: THREE, incarnation: 401 };
    let next = group.until_taken(leader, &command).await;
    assert_eq!(next, Epoch(epoch.0 + 1));
}

/// A voter that is gone for long is replaced, and one that is out runs no Raft and passes on what it is asked. Whoever leads
/// may vote itself out.
#[tokio::test(start_paused = true)]
async fn voters_are_exchanged() {
    let mut group = Group::start(4).await;
    let leader = group.leader().await;
    let four = NodeId(4);
    assert_eq!(group.node(four).view().voters(), [ONE, TWO, THREE]);
    assert!(matches!(group.propose_at(four, invite(0)).await, Err(NotProposed::LedBy(_))));
    let out = group.up().into_iter().find(|id| ![leader, four].contains(id)).expect("two");
    group.crash(out).await;
    group
        .until("n4 votes", |group| {
            let view = group.node(four).view();
            (view.voters().contains(&four) && !view.voters().contains(&out)).then_some(())
        })
        .await;
    group.boot(out).await;
    let epoch = group.until_taken(out, &invite(1)).await;
    group.until_epoch(epoch).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let asked = group.propose_at(out, invite(2)).await;
    assert!(matches!(asked, Err(NotProposed::LedBy(_))), "{asked:?}");
    assert!(group.log(out).standing().leader.is_none(), "it runs no Raft");

    let leader = group.leader().await;
    let voters = group.node(leader).view().voters().to_vec();
    let last = voters.into_iter().find(|id| *id != leader).expect("three vote");
    group.log(leader).set_voters(vec![last]).await.expect("all are there");
    // it goes on to lead for about a heartbeat; what it put into the log then would end its part in the group for good
    let mut led = false;
    for _ in 0..500 {
        match group.log(leader).set_voters(vec![last, leader]).await {
            Err(NotProposed::Frozen(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            more => {
                assert!(matches!(more, Err(NotProposed::LedBy(by)) if by == last), "{more:?}");
                led = true;
                break;
            }
        }
    }
    assert!(led, "the last voter leads");
    group.until_taken(leader, &invite(3)).await;
    group.log(last).set_voters(vec![last, leader]).await.expect("the former leader follows again");
}

/// Two of three voters are lost for good. The third goes on alone when its operator says so, and the ring remembers that.
#[tokio::test(start_paused = true)]
async fn a_lost_majority_is_recovered_by_decision() {
    let mut group = Group::start(3).await;
    let leader = group.leader().await;
    group.propose_at(leader, invite(1)).await.expect("all are there");
    group.until_epoch(Epoch(2)).await;
    for id in [ONE, TWO, THREE] {
        group.crash(id).await;
    }
    let other = ClusterId([8; 16]);
    let refused = group.recover(ONE, other).await.expect_err("another cluster");
    assert!(refused.to_string().contains("and not of"), "{refused}");
    assert_eq!(group.recover(ONE, CLUSTER).await, Ok(Epoch(4)));
    group.boot(ONE).await;
    assert_eq!(group.leader().await, ONE);
    assert_eq!(group.node(ONE).view().voters(), [ONE]);
    assert_eq!(group.propose_at(ONE, invite(2)).await, Ok(Epoch(5)));
    group.crash(ONE).await;
    group.boot(ONE).await;
    group.leader().await;
    assert_eq!(group.propose_at(ONE, invite(3)).await, Ok(Epoch(6)));
}

/// A voter loses its disk. It comes back under a new incarnation, which the log has taken, and as another member of the group:
/// first it learns, then it votes. As who it was it never says anything again.
#[tokio::test(start_paused = true)]
async fn a_wiped_voter_votes_under_a_new_name() {
    let mut group = Group::start(3).await;
    let leader = group.leader().await;
    group.propose_at(leader, invite(1)).await.expect("all are there");
    let wiped = group.up().into_iter().find(|id| *id != leader).expect("two others");
    let third = group.up().into_iter().find(|id| ![leader, wiped].contains(id)).expect("three");
    let id_row = bytes::Bytes::from_static(b"raft/id");
    let before = group.store(wiped).synced_row(Space::Meta, &id_row).expect("it voted");
    group.wipe(wiped).await;
    group.boot(wiped).await;
    assert_eq!(group.status(wiped).await.incarnation, 1);
    assert_eq!(group.node(leader).view().member(wiped).expect("a member").incarnation, 1);
    group
        .until("it follows the log again", |group| {
            group.store(wiped).synced_row(Space::Meta, &id_row)
        })
        .await;
    let after = group.store(wiped).synced_row(Space::Meta, &id_row).expect("it votes");
    assert_ne!(before, after, "another member");

    // a message for its former life, as a candidate would send it: version, member, and then anything
    let former = [&[1][..], &u64::from(wiped.0).to_be_bytes(), &[0; 40]].concat();
    let refused = group.log(wiped).hear(leader, former.into()).await;
    let refused = refused.expect_err("not even looked at");
    assert!(refused.contains("former life"), "{refused}");

    // it counts: with the third gone, it and the leader are a majority
    tokio::time::sleep(Duration::from_secs(5)).await;
    group.crash(third).await;
    let leader = group.leader().await;
    group.until_taken(leader, &invite(2)).await;
    let up = [leader, wiped];
    assert!(up.contains(&group.leader().await));
}

/// Two of three voters lose their disks. Neither serves as an owner, both say why, and the third serves what it has.
#[tokio::test(start_paused = true)]
async fn two_wiped_voters_wait_for_a_decision() {
    let mut group = Group::start(3).await;
    let leader = group.leader().await;
    group.propose_at(leader, invite(1)).await.expect("all are there");
    group.until_epoch(Epoch(2)).await;
    let wiped: Vec<NodeId> = group.up().into_iter().filter(|id| *id != leader).collect();
    for id in &wiped {
        group.wipe(*id).await;
    }
    for id in &wiped {
        let node = group.begin(*id).await;
        tokio::spawn(async move { node.rise().await });
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    for id in &wiped {
        let rising = group.status(*id).await.rising;
        assert!(rising.contains("needs a new incarnation, and the ring is frozen"), "{rising}");
        assert!(rising.contains("1 of 3 voters reachable"), "{rising}");
    }
    group.put_and_get(leader, "still there").await.expect("data does not wait");

    group.crash(leader).await;
    group.recover(leader, CLUSTER).await.expect("its log goes on");
    group.boot(leader).await;
    for id in &wiped {
        group
            .until("it serves", |group| {
                let node = group.node(leader).view();
                (node.member(*id).expect("a member").incarnation == 1).then_some(())
            })
            .await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    for id in &wiped {
        assert_eq!(group.status(*id).await.rising, "");
    }
}
