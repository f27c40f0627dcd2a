"""The HTTP service: requests of members, in batches, from the current version of an artifact.

requests     rows of a request, and the window of a member's history
histories    encoded histories, least recently used ones dropped first
batcher      requests of one size together, none longer than a deadline
engine       scores of a batch
versions     the version that is served, replaced while requests are answered
service      all of these without HTTP
bodies, app  JSON and Arrow, FastAPI
"""
