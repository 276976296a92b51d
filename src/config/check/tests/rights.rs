//! What is said of clients and accounts that do not fit each other.
