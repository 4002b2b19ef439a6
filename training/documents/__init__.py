"""What governance reviewers read of a version: one evidence bundle, and the documents it fills.

``bundle`` holds what is known, ``people`` what a person wrote beside the spec. ``questions`` lists every
field that some document asks for and says whether evidence or a person answers it; the sentences stand
in ``facts``, ``rows``, ``results`` and ``upkeep``. ``hti1``, ``tripod`` and ``chai`` put the fields into
the order of each reader, ``tables`` and ``measures`` lay out the figures, ``page`` shows all of it to
people. No field is ever invented: what only a person can say reads "to be written by" until they have.
"""
