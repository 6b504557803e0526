-- The station's first tables, and triggers that keep the audit trail. {name} differs between databases.
CREATE TABLE reader (
  id VARCHAR(32) NOT NULL PRIMARY KEY,
  name VARCHAR(100) NOT NULL,
  created_at VARCHAR(32) NOT NULL,
  UNIQUE (name)
);
CREATE TABLE own_class (
  name VARCHAR(60) NOT NULL PRIMARY KEY,
  role VARCHAR(20) NOT NULL,
  created_at VARCHAR(32) NOT NULL
);
CREATE TABLE cases (
  id VARCHAR(32) NOT NULL PRIMARY KEY,
  creation_key VARCHAR(200),
  name VARCHAR(100) NOT NULL,
  created_at VARCHAR(32) NOT NULL,
  version INTEGER NOT NULL,
  model JSON NOT NULL,
  frame JSON,
  shift TEXT NOT NULL,
  first_id VARCHAR(32) NOT NULL REFERENCES reader (id),
  second_id VARCHAR(32) REFERENCES reader (id),
  second_finished BOOLEAN NOT NULL,
  signed_at VARCHAR(32),
  signed_by VARCHAR(32) REFERENCES reader (id),
  UNIQUE (creation_key)
);
CREATE INDEX ix_cases_created_at ON cases (created_at);
CREATE TABLE image (
  sha256 VARCHAR(64) NOT NULL PRIMARY KEY,
  num_bytes INTEGER NOT NULL,
  created_at VARCHAR(32) NOT NULL
);
CREATE TABLE cell (
  id VARCHAR(32) NOT NULL PRIMARY KEY,
  case_id VARCHAR(32) NOT NULL REFERENCES cases (id),
  position INTEGER NOT NULL,
  key VARCHAR(64) NOT NULL,
  name TEXT NOT NULL,
  image VARCHAR(64) REFERENCES image (sha256),
  error TEXT NOT NULL,
  note TEXT NOT NULL,
  look JSON,
  predicted_class VARCHAR(200),
  abstain BOOLEAN NOT NULL,
  answer JSON,
  features {bytes},
  final_class VARCHAR(200),
  UNIQUE (case_id, position),
  UNIQUE (case_id, key)
);
CREATE INDEX ix_cell_case_id ON cell (case_id);
CREATE INDEX ix_cell_image ON cell (image);
CREATE INDEX ix_cell_final_class ON cell (final_class);
CREATE TABLE reading (
  cell_id VARCHAR(32) NOT NULL REFERENCES cell (id),
  reader_id VARCHAR(32) NOT NULL REFERENCES reader (id),
  class_name VARCHAR(200),
  comment TEXT NOT NULL,
  at VARCHAR(32) NOT NULL,
  PRIMARY KEY (cell_id, reader_id)
);
CREATE TABLE seen (
  case_id VARCHAR(32) NOT NULL REFERENCES cases (id),
  reader_id VARCHAR(32) NOT NULL REFERENCES reader (id),
  class_name VARCHAR(200) NOT NULL,
  PRIMARY KEY (case_id, reader_id, class_name)
);
CREATE TABLE event (
  id {counter} NOT NULL PRIMARY KEY,
  case_id VARCHAR(32) NOT NULL,
  at VARCHAR(32) NOT NULL,
  reader VARCHAR(100) NOT NULL,
  kind VARCHAR(20) NOT NULL,
  cell_id VARCHAR(32) NOT NULL,
  before TEXT NOT NULL,
  after TEXT NOT NULL,
  detail TEXT NOT NULL
);
CREATE INDEX ix_event_case_id ON event (case_id);
CREATE TABLE quiz (
  id VARCHAR(32) NOT NULL PRIMARY KEY,
  reader_id VARCHAR(32) NOT NULL REFERENCES reader (id),
  created_at VARCHAR(32) NOT NULL
);
CREATE INDEX ix_quiz_reader_id ON quiz (reader_id);
CREATE TABLE quiz_cell (
  quiz_id VARCHAR(32) NOT NULL REFERENCES quiz (id),
  number INTEGER NOT NULL,
  cell_id VARCHAR(32) NOT NULL REFERENCES cell (id),
  signed VARCHAR(200) NOT NULL,
  answer VARCHAR(200) NOT NULL,
  PRIMARY KEY (quiz_id, number)
);
CREATE INDEX ix_quiz_cell_cell_id ON quiz_cell (cell_id)
