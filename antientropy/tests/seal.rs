//! Context tokens: good for their own key, and for nothing else, whatever is done to their bytes.

use atoll_antientropy::{Actor, Context, ContextToken, Event, INTERVALS_MAX, Secret, TokenError};
use bytes::Bytes;

const SECRET: Secret = Secret([7; 32]);
const CLUSTER: [u8; 16] = [1; 16];
const BUCKET: [u8; 16] = [2; 16];

fn context() -> Context {
    let mut context = Event::alone(Actor::new(1, 0), 4).context();
    context.add_interval(Actor::new(2, 1), 3, 900);
    context
}

fn token() -> ContextToken {
    ContextToken::seal(&SECRET, &CLUSTER, &BUCKET, b"tea", &context())
}

fn open(bytes: impl Into<Bytes>) -> Result<Context, TokenError> {
    ContextToken::from(bytes.into()).open(&SECRET, &CLUSTER, &BUCKET, b"tea")
}

/// The right place opens it; without the secret one can only look.
#[test]
fn a_token_opens_for_its_key() {
    assert_eq!(open(token().as_bytes().clone()), Ok(context()));
    assert_eq!(token().peek(), Ok(context()));
    let nothing = ContextToken::seal(&SECRET, &CLUSTER, &BUCKET, b"", &Context::new());
    assert_eq!(nothing.open(&SECRET, &CLUSTER, &BUCKET, b""), Ok(Context::new()));
}

/// Each mistake has its name.
#[test]
fn a_token_opens_nowhere_else() {
    let check = |secret: &Secret, cluster, bucket, key: &[u8], why| {
        assert_eq!(token().open(secret, &cluster, &bucket, key), Err(why));
    };
    check(&SECRET, [9; 16], BUCKET, b"tea", TokenError::OtherCluster);
    check(&SECRET, CLUSTER, BUCKET, b"milk", TokenError::OtherKey);
    check(&SECRET, CLUSTER, BUCKET, b"te", TokenError::OtherKey);
    check(&SECRET, CLUSTER, BUCKET, b"", TokenError::OtherKey);
    check(&SECRET, CLUSTER, [9; 16], b"tea", TokenError::OtherKey);
    check(&Secret([8; 32]), CLUSTER, BUCKET, b"tea", TokenError::Forged);
}

/// The fingerprints are plain hashes, so anyone can move a context to another key. The tag does not
/// follow.
#[test]
fn a_token_with_borrowed_fingerprints_is_forged() {
    let milk = ContextToken::seal(&SECRET, &CLUSTER, &BUCKET, b"milk", &context());
    let mut moved = milk.as_bytes().to_vec();
    moved[..13].copy_from_slice(&token().as_bytes()[..13]);
    assert_eq!(open(moved), Err(TokenError::Forged));
}

/// Every single bit counts: none can be flipped, and no byte cut off or added.
#[test]
fn every_bit_is_under_seal() {
    let good = token().as_bytes().to_vec();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 => TokenError::Malformed,
            1..5 => TokenError::OtherCluster,
            5..13 => TokenError::OtherKey,
            _ => TokenError::Forged,
        };
        assert_eq!(open(bad), Err(expected), "bit {bit}");
    }
    for len in 0..good.len() {
        let expected = if len < 13 + 16 { TokenError::Malformed } else { TokenError::Forged };
        assert_eq!(open(good[..len].to_vec()), Err(expected), "cut to {len}");
        let cut = ContextToken::from(Bytes::from(good[..len].to_vec()));
        assert_ne!(cut.peek(), Ok(context()));
    }
    let longer = [&good[..], &[0]].concat();
    assert_eq!(open(longer), Err(TokenError::Forged));
}

/// A context may have as many intervals as the bound says, and not one more; far more is refused by
/// its length alone.
#[test]
fn intervals_are_bounded() {
    let check = |intervals: usize, stride: u64, expected: Result<usize, TokenError>| {
        let mut context = Context::new();
        for index in 0..intervals as u64 {
            context.add(&Event::alone(Actor::new(u32::MAX, u32::MAX), 1 + stride * index));
        }
        assert_eq!(context.intervals(), intervals);
        let token = ContextToken::seal(&SECRET, &CLUSTER, &BUCKET, b"tea", &context);
        let intervals = |context: Context| context.intervals();
        assert_eq!(token.peek().map(intervals), expected);
        assert_eq!(open(token.as_bytes().clone()).map(intervals), expected);
    };
    check(INTERVALS_MAX, 2, Ok(INTERVALS_MAX));
    check(INTERVALS_MAX + 1, 2, Err(TokenError::TooLong));
    check(100 * INTERVALS_MAX, 2, Err(TokenError::TooLong));

    // The longest numbers there are: the bound in bytes does not undercut the bound in intervals.
    let mut widest = Context::new();
    for index in 0..INTERVALS_MAX as u32 {
        widest.add_interval(Actor::new(u32::MAX - index, u32::MAX), 1 << 62, u64::MAX);
    }
    let token = ContextToken::seal(&SECRET, &CLUSTER, &BUCKET, b"tea", &widest);
    assert_eq!(open(token.as_bytes().clone()), Ok(widest));
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(format!("{SECRET:?}"), "Secret(hidden)");
}
