//! One file per promise. Each judge reads the books and writes down what it finds; none knows of another.

pub(crate) mod convergence;
pub(crate) mod dots;
pub(crate) mod errors;
pub(crate) mod events;
pub(crate) mod kinds;
pub(crate) mod lost;
pub(crate) mod phantom;
pub(crate) mod reads;
pub(crate) mod receipts;
pub(crate) mod resurrection;
pub(crate) mod sessions;
