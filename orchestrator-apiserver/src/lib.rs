//! The API server: one request pipeline, in process and over HTTPS.
