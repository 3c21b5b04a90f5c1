"""`streamrnn demo`: real readings through real Kafka into networks held by Ray actors, one of which is killed."""
