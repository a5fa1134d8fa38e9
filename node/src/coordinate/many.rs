//! Several keys in one request: each is written or read as if it had been asked for alone, and all at the same time.
//!
//! Nothing ties them together. What is saved is the way: one frame from the client instead of many, and the frames to the other
//! owners leave together.

use std::sync::Arc;

use atoll_wire::{
    Ask, ErrorCode, Failure, Many, ManyReply, One, Reply,
    limits::{MANY_MAX, MANY_TAIL_BYTES_MAX},
};
use futures_util::future::join_all;

use super::{get::get, write::write};
use crate::{
    Node,
    node::Due,
    trace::{Traced, Tracing},
};

/// Answers all of them, each with its own outcome.
pub(crate) async fn many(node: Arc<Node>, many: Many, due: Due, trace: bool) -> Reply {
    let Some(requests) = many.read() else {
        let detail = format!("these bytes are no requests, or more than {MANY_MAX}");
        return crate::node::failed(Failure::refused(ErrorCode::Malformed, detail));
    };
    let replies = join_all(requests.into_iter().map(|One { operation, ask }| {
        let node = node.clone();
        Box::pin(async move {
            let tracing = trace.then(|| Tracing::begin(&node, node.clock().now()));
            let traced = tracing.as_ref().map_or(Traced::No, Tracing::traced);
            let due = Due { operation, traced, ..due };
            let reply = match ask {
                Ask::Write(change) => write(node, change, due).await,
                Ask::Get(read) => get(node, read, due).await,
            };
            match tracing {
                Some(tracing) => tracing.end(reply),
                None => reply,
            }
        })
    }));
    Reply::Many(ManyReply::of(&fitting(replies.await)))
}

/// What does not fit into the frame any more is refused: whoever asks for it alone gets it. Only readings are long.
fn fitting(replies: Vec<Reply>) -> Vec<Reply> {
    let mut left = MANY_TAIL_BYTES_MAX - MANY_MAX * REPLY_BYTES_MAX;
    let short = |reply| match reply {
        Reply::Found(found) if found.reading.len() > left => {
            let detail = "the answers are too long for one frame; read this key alone";
            crate::node::failed(Failure {
                retry_after_ms: 1,
                ..Failure::refused(ErrorCode::Overloaded, detail)
            })
        }
        Reply::Found(found) => {
            left -= found.reading.len();
            Reply::Found(found)
        }
        other => other,
    };
    replies.into_iter().map(short).collect()
}

/// What an answer has beside its reading: a context of up to a thousand intervals, a receipt, words.
const REPLY_BYTES_MAX: usize = 24 << 10;
